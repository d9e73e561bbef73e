//! A node's part in a call of all connections with a tag: the same for the caller's own node and for others.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::Value;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::selection::TaggedConnections;
use super::wire::{ByteBudget, TagCall, TagReply};
use super::{Tags, TagsInner};
use crate::backend::TagMessage;
use crate::connection::Connection;
use crate::error::ActionError;
use crate::id::{ConnectionId, Generation, TagId};
use crate::metrics::record_drop;
use crate::protocol::CloseReason;
use crate::remote::error::ApplyError;
use crate::remote::execute::Started;
use crate::remote::wire::ReplyMessage;

/// Methods of one call that run at once on a node.
const AT_ONCE: usize = 32;

/// Methods that are run before other tasks are.
const BATCH: usize = 128;

impl Tags {
    /// Runs a call of another node, and replies; also to one of a later release, so that its caller need not wait.
    pub(super) fn serve(&self, from: Generation, message: TagMessage) {
        let tags = self.0.clone();
        let TagMessage { tag, id, deadline_ms, payload, .. } = message;
        self.0.parts.call_server.serve(from, id, deadline_ms, move |limit| async move {
            let Some(call) = TagCall::decode(&payload) else {
                record_drop("tag_unreadable");
                return Err(ApplyError::UnknownMethod);
            };
            let answer = tags.run(tag, &call, limit).await?;
            Ok(serde_json::to_value(answer).map_err(ActionError::internal)?)
        });
    }
}

impl TagsInner {
    /// Runs a call on the connections of this node.
    pub(super) async fn run(
        self: &Arc<Self>,
        tag: TagId,
        call: &TagCall,
        limit: Duration,
    ) -> Result<TagReply, ApplyError> {
        match call {
            TagCall::Count => Ok(self.list(tag, |id| id.owner().is_none())),
            TagCall::List => Ok(self.list(tag, |_| true)),
            TagCall::Close { code } => {
                let Some(reason) = CloseReason::of_application(*code) else {
                    record_drop("tag_unreadable");
                    return Err(ActionError::internal("no close code of an application").into());
                };
                Ok(TagReply { count: self.close_paced(tag, reason), ..TagReply::default() })
            }
            TagCall::Apply { method, args } => Ok(self.apply(tag, method, args, limit).await),
        }
    }

    /// Counts the connections with a tag, and lists the first of those that are wanted.
    fn list(&self, tag: TagId, is_wanted: impl Fn(&ConnectionId) -> bool) -> TagReply {
        let Some(local) = self.find(tag) else { return TagReply::default() };
        let members = local.members();
        let mut budget = ByteBudget::new(self.parts.config.cluster.max_call.as_u64());
        let ids = members.all().map(Connection::id).filter(|id| is_wanted(id)).take(TaggedConnections::LISTED);
        let ids = ids.take_while(|id| budget.take(id.as_str().len())).map(ConnectionId::to_string).collect();
        TagReply { count: members.len(), ids, ..TagReply::default() }
    }

    /// Runs a method on each of the connections, for nine tenths of the time, so that the answer of a node is in time even if
    /// the method does not return on one of them.
    async fn apply(&self, tag: TagId, method: &str, args: &Value, limit: Duration) -> TagReply {
        let (limit, members) = (limit.mul_f64(0.9), self.members(tag));
        let deadline = Instant::now() + limit;
        let mut answer = TagReply { count: members.len(), failed: members.len(), ..TagReply::default() };
        let mut budget = ByteBudget::new(self.parts.config.cluster.max_call.as_u64());
        let calls = members.into_iter().map(|member| self.apply_to(member, method, args, deadline));
        let mut results = stream::iter(calls).buffer_unordered(AT_ONCE);
        let mut done = 0;
        while let Ok(Some((id, result))) = timeout_at(deadline, results.next()).await {
            answer.failed -= usize::from(result.is_ok());
            if answer.results.len() < TaggedConnections::RESULTS {
                let result = ReplyMessage::from_result(result);
                if budget.take(id.as_str().len() + result.encode().len()) {
                    answer.results.push((id.to_string(), result));
                }
            }
            done += 1;
            if done % BATCH == 0 {
                yield_now().await;
            }
        }
        answer
    }

    async fn apply_to(
        &self,
        member: Connection,
        method: &str,
        args: &Value,
        deadline: Instant,
    ) -> (ConnectionId, Result<Value, ApplyError>) {
        let id = member.id().clone();
        let executor = &self.parts.executor;
        let result = match executor.start_on(member, method, args.clone()) {
            Started::Done(result) => result,
            Started::Pending(pending) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let limit = executor.limit_of(method, None).map_or(left, |own| own.min(left));
                executor.finish(pending, method, Some(limit)).await
            }
        };
        (id, result)
    }
}
