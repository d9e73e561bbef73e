//! Calls of nodes that are not known beforehand: each node that receives a publication replies.

use std::collections::HashSet;
use std::future::Future;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::pending::{LONGEST, NodeReply, PendingReply, RemoteCalls};
use super::wire::ReplyMessage;
use crate::backend::{BackendError, NodeMessage, NodeMessageKind, NodeRecord};
use crate::error::ActionError;
use crate::id::Generation;

/// Most replies of one call that wait to be read; a cluster has fewer nodes.
const MOST_REPLIES: usize = 4096;

/// The nodes that have replied to a call.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// Those with a result, and this one if it has received the call.
    pub(crate) answered: HashSet<Generation>,
    /// How many nodes have received the call and have no result here.
    pub(crate) unanswered: usize,
}

impl RemoteCalls {
    /// Publishes a call under its number, which has to be run until the given time, and takes the results of as many nodes
    /// as have received it, each as it comes; `take` says whether it could be read. This node, if it is one of them, has its
    /// own receipt only counted, by [`Self::receive_own`].
    pub(crate) async fn gather<F>(
        &self,
        limit: Duration,
        publish: impl FnOnce(u64, u64) -> F,
        mut take: impl FnMut(Value) -> bool,
    ) -> Result<Gathered, ActionError>
    where
        F: Future<Output = Result<usize, BackendError>>,
    {
        let limit = limit.min(LONGEST);
        let deadline = Instant::now() + limit;
        let (sender, mut incoming) = mpsc::channel::<NodeReply>(MOST_REPLIES);
        let open = self.open(PendingReply::Many(Vec::new(), sender))?;
        let publishing = publish(open.id(), self.now_ms() + limit.as_millis() as u64);
        let late = || BackendError::unavailable("the call was not published in time");
        let receivers = timeout_at(deadline, publishing).await.unwrap_or_else(|_| Err(late()))?;
        let (mut gathered, mut replied) = (Gathered::default(), HashSet::new());
        while replied.len() < receivers {
            let Ok(Some((from, reply))) = timeout_at(deadline, incoming.recv()).await else { break };
            let Some(reply) = reply.filter(|_| !replied.contains(&from)) else { continue };
            if self.is_own(from) {
                replied.insert(from);
                gathered.answered.insert(from);
            } else if let Some(reply) = ReplyMessage::decode(&reply) {
                replied.insert(from);
                // A node that refuses the call, because it serves as many as it may, counts as one without an answer.
                if reply.into_result().is_ok_and(&mut take) {
                    gathered.answered.insert(from);
                }
            }
        }
        gathered.unanswered = receivers.saturating_sub(gathered.answered.len());
        Ok(gathered)
    }

    /// Counts this node among those that have received a call of its own.
    pub(crate) fn receive_own(&self, from: Generation, id: u64) {
        let kind = NodeMessageKind::Reply;
        self.receive_reply(from, NodeMessage { kind, id, deadline_ms: None, payload: bytes::Bytes::new() });
    }

    /// The other nodes of the cluster that are not among these, named as in [`NodeRecord::names`].
    pub(crate) async fn names_of_others(&self, answered: &HashSet<Generation>) -> Result<Vec<String>, ActionError> {
        let nodes = self.nodes().await?;
        let has_answered = |record: &NodeRecord| {
            let mut generations = record.earlier.iter().chain([&record.generation]);
            self.is_own(record.generation) || generations.any(|generation| answered.contains(generation))
        };
        let named = nodes.iter().zip(NodeRecord::names(&nodes));
        let mut names: Vec<String> = named.filter(|(record, _)| !has_answered(record)).map(|(_, name)| name).collect();
        names.sort_unstable();
        Ok(names)
    }
}
