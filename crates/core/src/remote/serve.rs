//! The owner's side of remote calls: calls of other nodes that run here.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::error::ApplyError;
use super::execute::{Executor, Started};
use super::pending::{LONGEST, check_size};
use super::wire::{CallMessage, ReplyMessage};
use crate::backend::{Bus, Clock, Interop, InteropCall, NodeMessage, NodeMessageKind, Recipient};
use crate::error::{ActionError, ErrorKind};
use crate::id::{ConnectionId, Generation};
use crate::metrics::{bound_reached, record_drop};
use crate::shutdown::Shutdown;

/// Calls beyond those that may run that are refused at once; beyond these, callers get no reply.
const REFUSED_AT_ONCE: usize = 256;

/// Most bytes of a call that is decoded, and executed if it has nothing to wait for, by the task that takes it off the
/// bus: so short a call is done before another task would have started.
const SHORT: usize = 4096;

/// Serves the calls of other nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CallServer(Arc<ServerParts>);

struct ServerParts {
    bus: Arc<dyn Bus>,
    interop: Option<Arc<dyn Interop>>,
    clock: Arc<dyn Clock>,
    executor: Executor,
    shutdown: Shutdown,
    running: Arc<Semaphore>,
    refusing: Arc<Semaphore>,
    max_bytes: u64,
}

impl CallServer {
    /// At most `max_calls` calls of other nodes run at once.
    pub(crate) fn new(
        executor: Executor,
        bus: Arc<dyn Bus>,
        interop: Option<Arc<dyn Interop>>,
        clock: Arc<dyn Clock>,
        shutdown: Shutdown,
        (max_calls, max_bytes): (usize, u64),
    ) -> Self {
        let (running, refusing) = (Semaphore::new(max_calls), Semaphore::new(REFUSED_AT_ONCE));
        let (running, refusing) = (Arc::new(running), Arc::new(refusing));
        Self(Arc::new(ServerParts { bus, interop, clock, executor, shutdown, running, refusing, max_bytes }))
    }

    /// Runs a call of another node and replies; one whose deadline has passed is dropped unrun.
    pub(crate) fn receive_call(&self, from: Generation, call: NodeMessage) {
        let Some((permit, limit)) = self.admit(from, call.id, call.deadline_ms) else { return };
        let started = match call.payload.len() {
            0..=SHORT => match self.start(&call.payload) {
                Some((_, Started::Done(result))) => {
                    return self.post_or_spawn(from, self.reply(call.id, result), permit);
                }
                Some(pending) => Some(pending),
                None => return,
            },
            _ => None,
        };
        let server = self.clone();
        self.0.shutdown.spawn(async move {
            let _permit = permit;
            let result = match started.or_else(|| server.start(&call.payload)) {
                Some((_, Started::Done(result))) => result,
                Some((method, Started::Pending(pending))) => {
                    server.0.executor.finish(pending, &method, Some(limit)).await
                }
                None => return,
            };
            server.post(from, server.reply(call.id, result)).await;
        });
    }

    /// Runs a call that is none of a method, under the same bounds, and replies. The code gets the time that it has.
    pub(crate) fn serve<F>(&self, from: Generation, id: u64, deadline_ms: Option<u64>, run: impl FnOnce(Duration) -> F)
    where
        F: Future<Output = Result<Value, ApplyError>> + Send + 'static,
    {
        let Some((permit, limit)) = self.admit(from, id, deadline_ms) else { return };
        let (server, running) = (self.clone(), run(limit));
        self.0.shutdown.spawn(async move {
            let _permit = permit;
            if let Ok(result) = timeout(limit, running).await {
                server.post(from, server.reply(id, result)).await;
            }
        });
    }

    /// Admits a call of another node: its permit, and the time that is left for it. One that is too late, or beyond the
    /// bound, is not run.
    fn admit(&self, from: Generation, id: u64, deadline_ms: Option<u64>) -> Option<(OwnedSemaphorePermit, Duration)> {
        let left = deadline_ms.and_then(|deadline| deadline.checked_sub(self.0.clock.now_ms()));
        let Some(left) = left.filter(|left| *left > 0) else {
            record_drop("call_too_late");
            return None;
        };
        let Ok(permit) = self.0.running.clone().try_acquire_owned() else {
            self.refuse(from, id);
            return None;
        };
        Some((permit, Duration::from_millis(left).min(LONGEST)))
    }

    /// Runs a call of an Actionhero node, if the connection is one of this node, and replies.
    pub(crate) fn receive_interop_call(&self, call: InteropCall) {
        if self.0.executor.registry.find(&call.connection).is_none() {
            return; // every node received the call
        }
        let Ok(permit) = self.0.running.clone().try_acquire_owned() else {
            bound_reached("cluster.max_calls");
            return record_drop("asked_too_many");
        };
        let server = self.clone();
        self.0.shutdown.spawn(async move {
            let _permit = permit;
            let Some(result) = server.execute_all(&call.connection, call.methods).await else { return };
            if let Some(interop) = &server.0.interop
                && let Err(error) = interop.reply(&call.reply_to, result).await
            {
                debug!(%error, "a reply to an Actionhero node was not sent");
            }
        });
    }

    /// Executes methods one after the other; `None` if one fails: Actionhero nodes know no errors, and time out as among
    /// themselves.
    async fn execute_all(&self, connection: &ConnectionId, methods: Vec<(String, Value)>) -> Option<Value> {
        let limit = Some(self.0.executor.rpc_timeout);
        let mut last = Value::Null;
        for (method, args) in methods {
            match self.0.executor.execute(Some(connection), &method, args, limit).await {
                Ok(result) => last = result,
                Err(error) => {
                    warn!(id = %connection, method, %error, "an Actionhero node gets no reply");
                    return None;
                }
            }
        }
        Some(last)
    }

    /// Decodes a call and starts it; `None` if it is unreadable.
    fn start(&self, payload: &[u8]) -> Option<(String, Started)> {
        let Some(CallMessage { connection, method, args }) = CallMessage::decode(payload) else {
            record_drop("call_unreadable");
            return None;
        };
        let started = self.0.executor.start(connection.as_ref(), &method, args);
        Some((method, started))
    }

    fn refuse(&self, from: Generation, id: u64) {
        bound_reached("cluster.max_calls");
        let Ok(permit) = self.0.refusing.clone().try_acquire_owned() else { return record_drop("call_too_many") };
        let refused = ActionError::of(ErrorKind::Unavailable, "the node answers as many calls as it may");
        self.post_or_spawn(from, self.reply(id, Err(refused.into())), permit);
    }

    fn reply(&self, id: u64, result: Result<Value, ApplyError>) -> NodeMessage {
        let mut payload = ReplyMessage::from_result(result).encode();
        if let Err(error) = check_size(self.0.max_bytes, &payload, "the answer is too large for a call") {
            payload = ReplyMessage::from_result(Err(error.into())).encode();
        }
        NodeMessage { kind: NodeMessageKind::Reply, id, deadline_ms: None, payload }
    }

    /// Posts a reply at once, or on a task where it has to wait for its turn. Until it is sent the call keeps its permit,
    /// and a node that stops waits for it.
    fn post_or_spawn(&self, to: Generation, reply: NodeMessage, permit: OwnedSemaphorePermit) {
        let guard = Box::new((permit, self.0.shutdown.token()));
        let Err((reply, guard)) = self.0.bus.try_post(Recipient::Node(to), reply, guard) else { return };
        let server = self.clone();
        self.0.shutdown.spawn(async move {
            let _guard = guard;
            server.post(to, reply).await;
        });
    }

    async fn post(&self, to: Generation, reply: NodeMessage) {
        if let Err(error) = self.0.bus.post(Recipient::Node(to), reply).await {
            debug!(%error, %to, "a reply was not sent");
        }
    }
}
