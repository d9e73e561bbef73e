//! The caller's side of remote calls: calls of this node that wait for replies of others.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::built_in::{ParsedCall, parse};
use super::error::ApplyError;
use super::execute::Executor;
use super::wire::{CallRef, ReplyMessage};
use crate::backend::{
    BackendError, Bus, Clock, Interop, Membership, NodeMessage, NodeMessageKind, NodeRecord, Recipient,
};
use crate::error::{ActionError, ErrorKind};
use crate::id::{ConnectionId, Generation, NodeIdentity};
use crate::metrics::bound_reached;

/// The longest that a call to another node waits, whatever its deadline says.
pub(crate) const LONGEST: Duration = Duration::from_secs(3600);

/// How long after the reap of a node that still runs it has another generation: it renews its lease each second.
const RENAME_GRACE: Duration = Duration::from_millis(1500);

/// Everything that calls to other nodes need.
pub(crate) struct RemoteCallParts {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) membership: Arc<dyn Membership>,
    pub(crate) interop: Option<Arc<dyn Interop>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identity: Arc<NodeIdentity>,
    pub(crate) executor: Executor,
    /// Most calls that wait at once.
    pub(crate) max_calls: usize,
    /// Most bytes of a call or a reply.
    pub(crate) max_bytes: u64,
}

/// The calls of this node to others.
pub(crate) struct RemoteCalls {
    parts: RemoteCallParts,
    pending: Mutex<HashMap<u64, PendingReply>>,
    next: AtomicU64,
}

/// A reply to a call of many nodes; `None` from a generation that was reaped.
pub(super) type NodeReply = (Generation, Option<Bytes>);

/// The nodes that are to reply, and the channel for their replies as they came: the caller decodes them, not the task that
/// takes them off the bus.
#[derive(Debug)]
pub(super) enum PendingReply {
    One(Generation, oneshot::Sender<Bytes>),
    Many(Vec<Generation>, mpsc::Sender<NodeReply>),
}

/// A registered call; dropped, it is no longer pending.
pub(super) struct OpenCall<'a> {
    calls: &'a RemoteCalls,
    id: u64,
}

impl OpenCall<'_> {
    /// Its number, which ties the replies to it.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        self.calls.pending().remove(&self.id);
    }
}

/// The replies to a call of all nodes.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    pub(crate) by_node: BTreeMap<Generation, Result<Value, ApplyError>>,
    /// The nodes that have a lease, as far as is known, and did not reply.
    silent: BTreeSet<Generation>,
    /// Why the other nodes may not have received the call.
    unsent: Option<BackendError>,
}

impl RemoteCalls {
    pub(crate) fn new(parts: RemoteCallParts) -> Self {
        Self { parts, pending: Mutex::default(), next: AtomicU64::new(1) }
    }

    /// Calls a method of a connection that is not of this node's registry.
    pub(super) async fn call_connection(
        &self,
        id: &ConnectionId,
        method: &str,
        args: Value,
        limit: Option<Duration>,
    ) -> Result<Value, ApplyError> {
        match id.owner() {
            Some(owner) if self.parts.identity.is_own(owner) => Err(ApplyError::NotFound),
            Some(owner) => self.call_node(owner, Some(id), method, args, limit).await,
            None => Box::pin(self.call_owner(id, method, args, limit)).await,
        }
    }

    /// Calls a method of a connection of another node, or of the node itself.
    pub(crate) async fn call_node(
        &self,
        node: Generation,
        connection: Option<&ConnectionId>,
        method: &str,
        args: Value,
        limit: Option<Duration>,
    ) -> Result<Value, ApplyError> {
        if self.parts.identity.is_own(node) {
            return self.parts.executor.execute(connection, method, args, limit).await;
        }
        let limit = self.limit_of(method, limit);
        let deadline = Instant::now() + limit;
        let (sender, reply) = oneshot::channel();
        let open = self.open(PendingReply::One(node, sender))?;
        let message = self.call_message(open.id, connection, method, &args, limit)?;
        let call = async {
            let posted = self.parts.bus.post(Recipient::Node(node), message).await.map_err(ActionError::from)?;
            if !posted.on_record {
                return Err(ApplyError::NotFound);
            }
            if !posted.received {
                return Err(ApplyError::Unreachable);
            }
            // The channel closes where meanwhile the generation was reaped, or the subscription lost.
            let reply = reply.await.map_err(|_| ApplyError::Late)?;
            ReplyMessage::decode(&reply).map_or(Err(ApplyError::Late), ReplyMessage::into_result)
        };
        timeout_at(deadline, call).await.unwrap_or(Err(ApplyError::Late))
    }

    /// Calls a connection whose id names no node: its owner executes the call, all others reply that it is not theirs.
    /// Where there are Actionhero nodes, it may be one of theirs, and they do not reply otherwise.
    async fn call_owner(
        &self,
        connection: &ConnectionId,
        method: &str,
        args: Value,
        limit: Option<Duration>,
    ) -> Result<Value, ApplyError> {
        let limit = self.limit_of(method, limit);
        let Some(interop) = &self.parts.interop else {
            return self.call_owner_of_ours(connection, method, args, limit).await;
        };
        // Methods of the application exist on its own nodes only.
        let ParsedCall::BuiltIn(operation) = parse(method, args.clone())? else {
            return self.call_owner_of_ours(connection, method, args, limit).await;
        };
        let ours = pin!(self.call_owner_of_ours(connection, method, args, limit));
        let theirs = pin!(async { interop.apply(connection, operation, limit).await.map_err(ApplyError::from) });
        match select(ours, theirs).await {
            Either::Left((Err(ApplyError::NotFound), theirs)) => theirs.await,
            Either::Left((Err(ApplyError::Late), theirs)) => theirs.await.map_err(|_| ApplyError::Late),
            Either::Left((result, _)) | Either::Right((result @ Ok(_), _)) => result,
            Either::Right((Err(refusal), ours)) => match ours.await {
                Err(ApplyError::NotFound) => Err(refusal),
                result => result,
            },
        }
    }

    async fn call_owner_of_ours(
        &self,
        connection: &ConnectionId,
        method: &str,
        args: Value,
        limit: Duration,
    ) -> Result<Value, ApplyError> {
        let deadline = Instant::now() + limit;
        let nodes = timeout_at(deadline, self.parts.membership.nodes()).await;
        let nodes = nodes.map_err(|_| ApplyError::Late)?.map_err(ActionError::from)?;
        let Replies { by_node, silent, unsent } =
            self.call_all(&nodes, Some(connection), method, args, deadline).await?;
        match by_node.into_values().find(is_of_owner) {
            Some(result) => result,
            None if silent.is_empty() => Err(ApplyError::NotFound),
            None => Err(unsent.map_or(ApplyError::Late, ApplyError::from)),
        }
    }

    /// Calls all nodes at once; with a connection, until its owner has replied.
    pub(crate) async fn call_all(
        &self,
        nodes: &[NodeRecord],
        connection: Option<&ConnectionId>,
        method: &str,
        args: Value,
        deadline: Instant,
    ) -> Result<Replies, ActionError> {
        let (own, others): (Vec<_>, Vec<_>) =
            nodes.iter().map(|record| record.generation).partition(|node| self.parts.identity.is_own(*node));
        let limit = deadline.saturating_duration_since(Instant::now());
        // Twice as many as there are nodes: a node that replies more than once finds the channel full in the end.
        let (sender, mut incoming) = mpsc::channel((2 * others.len()).max(1));
        let open = self.open(PendingReply::Many(others.clone(), sender))?;
        let message = self.call_message(open.id, connection, method, &args, limit)?;
        let mut replies = Replies { silent: others.into_iter().collect(), ..Replies::default() };
        let here = async {
            match own.first() {
                Some(own) => Some((*own, self.parts.executor.execute(connection, method, args, Some(limit)).await)),
                None => None,
            }
        };
        let there = async {
            if replies.silent.is_empty() {
                return;
            }
            match timeout_at(deadline, self.parts.bus.post(Recipient::Everyone, message)).await {
                Ok(Ok(_)) => {
                    self.receive_all(nodes, &mut incoming, &mut replies, connection.is_some(), deadline).await;
                }
                Ok(Err(error)) => replies.unsent = Some(error),
                Err(_) => {}
            }
        };
        let (here, ()) = tokio::join!(here, there);
        replies.by_node.extend(here);
        Ok(replies)
    }

    /// Receives replies of `nodes` until all are there, or the owner's is.
    async fn receive_all(
        &self,
        nodes: &[NodeRecord],
        incoming: &mut mpsc::Receiver<NodeReply>,
        replies: &mut Replies,
        until_owner: bool,
        deadline: Instant,
    ) {
        // Generations that were reaped, and when to see whether their nodes have others by then.
        let mut reaped: VecDeque<(Generation, Instant)> = VecDeque::new();
        while !replies.silent.is_empty() {
            let due = reaped.front().map_or(deadline, |(_, due)| *due).min(deadline);
            let (from, reply) = match timeout_at(due, incoming.recv()).await {
                Ok(Some(received)) => received,
                Ok(None) => return,
                Err(_) if due >= deadline => return,
                Err(_) => {
                    if let Some((dead, _)) = reaped.pop_front()
                        && !timeout_at(deadline, self.is_renamed(nodes, dead)).await.unwrap_or(false)
                    {
                        replies.silent.remove(&dead);
                    }
                    continue;
                }
            };
            let Some(reply) = reply else {
                reaped.push_back((from, Instant::now() + RENAME_GRACE));
                continue;
            };
            let Some(result) = ReplyMessage::decode(&reply).map(ReplyMessage::into_result) else { continue };
            let is_owner = until_owner && is_of_owner(&result);
            let is_known = is_owner || nodes.iter().any(|called| called.generation == from);
            let from = if is_known {
                from
            } else {
                timeout_at(deadline, self.find_renamed(nodes, from)).await.ok().flatten().unwrap_or(from)
            };
            if replies.silent.remove(&from) || is_owner {
                replies.by_node.insert(from, result);
            }
            if is_owner {
                return;
            }
        }
    }

    /// The generation under which a node was called that has another one by now.
    async fn find_renamed(&self, called: &[NodeRecord], now: Generation) -> Option<Generation> {
        let nodes = self.parts.membership.nodes().await.ok()?;
        let boot = nodes.iter().find(|record| record.generation == now)?.boot;
        called.iter().find(|record| record.boot == boot).map(|record| record.generation)
    }

    /// Whether the node that was called under a generation that is gone has another one.
    async fn is_renamed(&self, called: &[NodeRecord], gone: Generation) -> bool {
        let Ok(nodes) = self.parts.membership.nodes().await else { return false };
        let boot = called.iter().find(|record| record.generation == gone).map(|record| record.boot);
        nodes.iter().any(|record| Some(record.boot) == boot)
    }

    /// Hands a reply to the call that waits for it.
    pub(crate) fn receive_reply(&self, from: Generation, message: NodeMessage) {
        let mut pending = self.pending();
        match pending.get(&message.id) {
            Some(PendingReply::Many(_, replies)) => drop(replies.try_send((from, Some(message.payload)))),
            // Not compared with the generation that was called: a node takes another one when it was reaped.
            Some(PendingReply::One(..)) => {
                if let Some(PendingReply::One(_, reply)) = pending.remove(&message.id) {
                    let _ = reply.send(message.payload);
                }
            }
            None => {} // late, or the caller was dropped
        }
    }

    /// Ends the wait for generations that are not among `nodes` any more.
    pub(crate) fn fail_calls_to_dead_nodes(&self, nodes: &[NodeRecord]) {
        let has_lease =
            |node: &Generation| nodes.iter().any(|record| record.generation == *node || record.earlier.contains(node));
        self.pending().retain(|_, pending| match pending {
            PendingReply::One(node, _) => has_lease(node),
            PendingReply::Many(called, replies) => {
                for dead in called.extract_if(.., |node| !has_lease(node)) {
                    let _ = replies.try_send((dead, None));
                }
                true
            }
        });
    }

    /// Ends the wait of all calls: their replies will be missed.
    pub(crate) fn fail_all(&self) {
        self.pending().clear();
    }

    pub(super) fn is_own(&self, generation: Generation) -> bool {
        self.parts.identity.is_own(generation)
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.parts.clock.now_ms()
    }

    pub(super) async fn nodes(&self) -> Result<Vec<NodeRecord>, ActionError> {
        Ok(self.parts.membership.nodes().await?)
    }

    pub(super) fn open(&self, call: PendingReply) -> Result<OpenCall<'_>, ActionError> {
        let id = self.next.fetch_add(1, Relaxed);
        let mut pending = self.pending();
        if pending.len() >= self.parts.max_calls {
            bound_reached("cluster.max_calls");
            return Err(ActionError::of(ErrorKind::Unavailable, "the node waits for as many calls as it may")
                .with_retry_after(Duration::from_secs(1)));
        }
        pending.insert(id, call);
        Ok(OpenCall { calls: self, id })
    }

    fn call_message(
        &self,
        id: u64,
        connection: Option<&ConnectionId>,
        method: &str,
        args: &Value,
        limit: Duration,
    ) -> Result<NodeMessage, ActionError> {
        let payload = CallRef { connection: connection.map(ConnectionId::as_str), method, args }.encode();
        check_size(self.parts.max_bytes, &payload, "the arguments are too large for a call")?;
        let deadline_ms = Some(self.parts.clock.now_ms() + limit.min(LONGEST).as_millis() as u64);
        Ok(NodeMessage { kind: NodeMessageKind::Call, id, deadline_ms, payload })
    }

    /// How long the reply of another node is awaited.
    fn limit_of(&self, method: &str, limit: Option<Duration>) -> Duration {
        self.parts.executor.limit_of(method, limit).map_or(LONGEST, |limit| limit.min(LONGEST))
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<u64, PendingReply>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a result is the owner's, and not of a node that does not know the connection.
fn is_of_owner(result: &Result<Value, ApplyError>) -> bool {
    !matches!(result, Err(ApplyError::NotFound))
}

/// Checks the one bound of everything that goes from node to node.
pub(crate) fn check_size(max: u64, payload: &[u8], message: &'static str) -> Result<(), ActionError> {
    if payload.len() as u64 <= max {
        return Ok(());
    }
    bound_reached("cluster.max_call");
    Err(ActionError::of(ErrorKind::PayloadTooLarge, message))
}
