//! The handle on all connections with a tag.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::results::{TagCount, TagList, TagResults};
use super::wire::{TagCall, TagReplies};
use super::{Tags, application_tag};
use crate::backend::{TagMessage, TagMessageKind};
use crate::error::{ActionError, ErrorKind};
use crate::id::Tag;
use crate::metrics::bound_reached;
use crate::protocol::{self, CloseReason};
use crate::remote::built_in::in_context;
use crate::remote::execute::invalid_args;
use crate::remote::pending::{LONGEST, check_size};

/// All connections of the cluster with one tag, or of one user: made by [`Connections::tagged`](crate::Connections::tagged)
/// and [`Connections::user`](crate::Connections::user). Cheap to clone.
///
/// Messages and calls reach the nodes that have such connections, and no others. A node that did not answer in time is named
/// in the result, and is no error.
///
/// ```
/// use phalanx_core::config::Config;
/// use phalanx_core::protocol::CloseReason;
/// use phalanx_core::{Engine, NodeSetup};
/// use serde_json::json;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::start(NodeSetup::new("docs", Config::default())).await?;
/// let staff = engine.node().connections().tagged("staff");
/// staff.send(&json!({ "context": "alert", "text": "the kettle is on" })).await?;
/// staff.apply("set", json!(["informed", true])).await?;
/// let listed = staff.list().await?;
/// assert_eq!((listed.count, listed.ids, listed.missing), (0, vec![], vec![])); // none is connected here
/// staff.close(CloseReason::NotAllowed).await?;
/// # engine.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TaggedConnections {
    tags: Tags,
    /// Makes the tag of the name.
    parse: fn(&str) -> Result<Tag, ActionError>,
    name: Arc<str>,
    limit: Duration,
}

impl TaggedConnections {
    /// Most ids that [`Self::list`] returns; all are counted.
    pub const LISTED: usize = 1000;

    /// Most results that [`Self::apply`] returns; all are counted.
    pub const RESULTS: usize = 100;

    /// The connections with a tag of the application.
    pub(crate) fn of_application(tags: &Tags, name: &str) -> Self {
        Self::new(tags, application_tag, name)
    }

    /// The connections of a user.
    pub(crate) fn of_user(tags: &Tags, name: &str) -> Self {
        Self::new(tags, |name| Ok(Tag::of_user(name)), name)
    }

    fn new(tags: &Tags, parse: fn(&str) -> Result<Tag, ActionError>, name: &str) -> Self {
        let limit = tags.0.parts.config.general.rpc_timeout;
        Self { tags: tags.clone(), parse, name: name.into(), limit }
    }

    /// Waits for the replies of nodes as long as this, instead of `general.rpc_timeout`; an hour at most.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sends a message to all of them. An object brings its own `context`, which is `response` if it has none; anything else
    /// travels as `message`. It is encoded once, and `Ok` means that every node with such connections receives it.
    ///
    /// Messages of one sender, each sent after the one before returned, arrive in that order. Cancel safe: of a dropped call
    /// the connections of this node have got the message, those of others have or have not.
    ///
    /// # Errors
    ///
    /// `invalid_input` for a tag that cannot be one; `payload_too_large` beyond `cluster.max_call` and
    /// `websocket.outbox_bytes`; `unavailable` if it is unknown whether other nodes receive it: the connections of this node
    /// have got it.
    pub async fn send<T: Serialize + ?Sized>(&self, message: &T) -> Result<(), ActionError> {
        let tag = self.tag()?.id;
        let message = serde_json::to_value(message).map_err(ActionError::internal)?;
        let message: Map<String, Value> = in_context(message);
        let (parts, payload) = (&self.tags.0.parts, protocol::encode(&message));
        check_size(parts.config.cluster.max_call.as_u64(), &payload, "the message is too large for the cluster")?;
        if payload.len() as u64 > parts.config.websocket.outbox_bytes.as_u64() {
            bound_reached("websocket.outbox_bytes");
            let message = "the message is larger than websocket.outbox_bytes";
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, message));
        }
        parts.metrics.tag_messages.increment(1);
        self.tags.0.deliver(tag, &payload);
        let message = TagMessage { tag, kind: TagMessageKind::Frame, id: 0, deadline_ms: None, payload };
        parts.bus.publish_to_tag(message).await?;
        Ok(())
    }

    /// Counts them.
    ///
    /// # Errors
    ///
    /// `invalid_input` for a tag that cannot be one, `unavailable` if the backend does not answer, or if the node waits for
    /// `cluster.max_calls` answers.
    pub async fn count(&self) -> Result<TagCount, ActionError> {
        let (answers, missing) = self.call(&TagCall::Count).await?;
        Ok(TagCount { count: answers.count, missing })
    }

    /// Counts them, and lists the ids of the first [`Self::LISTED`].
    ///
    /// # Errors
    ///
    /// Those of [`Self::count`].
    pub async fn list(&self) -> Result<TagList, ActionError> {
        let (answers, missing) = self.call(&TagCall::List).await?;
        Ok(TagList { ids: answers.ids, count: answers.count, missing })
    }

    /// Closes them, in random order and evenly over `websocket.drain` at most, so that not all clients come back at once;
    /// returns how many they are. Few are closed at once. Cancel safe: a call that was dropped goes on.
    ///
    /// # Errors
    ///
    /// `invalid_input` for a reason whose code is not from 4500 to 4999, which is the server's own, and those of
    /// [`Self::count`]: with `unavailable` those of this node are closed all the same.
    pub async fn close(&self, reason: CloseReason) -> Result<TagCount, ActionError> {
        let code = reason.code();
        if CloseReason::of_application(code).is_none() {
            return Err(invalid_args("code", "range", "must be from 4500 to 4999"));
        }
        // The client of the call may be among them: then the call is dropped, perhaps before it is published.
        let tagged = self.clone();
        let closing = async move { tagged.call(&TagCall::Close { code }).await };
        let closed = self.tags.0.parts.shutdown.spawn(closing).await;
        let (answers, missing) = closed.map_err(ActionError::internal)??;
        Ok(TagCount { count: answers.count, missing })
    }

    /// Runs a method on each of them, as [`Connections::apply`](crate::Connections::apply) does on one; returns how many
    /// they are, and the first [`Self::RESULTS`] results, as far as they have room in `cluster.max_call` together.
    ///
    /// On each node 32 run at a time, each until its own deadline, and all for nine tenths of the time that this waits.
    ///
    /// # Errors
    ///
    /// `payload_too_large` if the arguments are beyond `cluster.max_call`, and those of [`Self::count`]: with `unavailable`
    /// the method has run on those of this node all the same. An error of the method is among the results.
    pub async fn apply(&self, method: &str, args: Value) -> Result<TagResults, ActionError> {
        let (answers, missing) = self.call(&TagCall::Apply { method: method.to_owned(), args }).await?;
        let results = answers.results.into_iter().map(|(id, result)| (id, result.into_result())).collect();
        Ok(TagResults { count: answers.count, failed: answers.failed, results, missing })
    }

    /// Has a call run on this node, and on all others that have such connections; returns their answers, and the names of
    /// those that are missing.
    async fn call(&self, call: &TagCall) -> Result<(TagReplies, Vec<String>), ActionError> {
        let (tag, tags, limit) = (self.tag()?.id, &self.tags.0, self.limit.min(LONGEST));
        let payload = call.encode();
        check_size(tags.parts.config.cluster.max_call.as_u64(), &payload, "the arguments are too large for a call")?;
        let publish = |id, deadline_ms| {
            let deadline_ms = Some(deadline_ms);
            tags.parts.bus.publish_to_tag(TagMessage { tag, kind: TagMessageKind::Call, id, deadline_ms, payload })
        };
        let answers = Mutex::new(TagReplies::new(tags.parts.config.cluster.max_call.as_u64()));
        let add = |answer| answers.lock().unwrap_or_else(PoisonError::into_inner).add(answer);
        let take = |result| serde_json::from_value(result).map(add).is_ok();
        let own = async { tags.run(tag, call, limit).await.map(add) };
        let (own, gathered) = tokio::join!(own, tags.parts.calls.gather(limit, publish, take));
        let gathered = gathered?;
        own?;
        let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        if gathered.unanswered == 0 {
            return Ok((answers, Vec::new()));
        }
        tags.parts.metrics.tag_missing.increment(gathered.unanswered as u64);
        Ok((answers, tags.parts.calls.names_of_others(&gathered.answered).await?))
    }

    fn tag(&self) -> Result<Tag, ActionError> {
        (self.parse)(&self.name)
    }
}

impl fmt::Debug for TaggedConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaggedConnections({})", self.name)
    }
}
