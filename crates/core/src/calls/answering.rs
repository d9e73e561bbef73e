//! Answering the calls of other nodes.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, warn};

use super::wire::{Answer, Call};
use super::{Calls, LONGEST, check_size};
use crate::backend::{Asked, Letter, LetterKind, Recipient};
use crate::connections::{ApplyError, Begun};
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;
use crate::node::{Generation, Node};

/// Calls beyond those that may run that are refused at once; beyond these, whoever calls waits in vain.
pub(super) const REFUSED_AT_ONCE: usize = 256;

/// Bytes of a call that is read, and answered if nothing has to be waited for, by the task that takes it off the bus:
/// what is that short is done before another task would have begun.
const SHORT: usize = 4096;

impl Calls {
    pub(super) fn receive_call(&self, node: &Node, from: Generation, letter: Letter) {
        let left = letter.deadline_ms.and_then(|deadline| deadline.checked_sub(node.now_ms())).filter(|left| *left > 0);
        let Some(left) = left else { return dropped("call_too_late") };
        let Ok(place) = self.running.clone().try_acquire_owned() else {
            return self.refuse(node, from, letter.id);
        };
        let limit = Duration::from_millis(left).min(LONGEST);
        let begun = match letter.payload.len() {
            0..=SHORT => match begin(node, &letter.payload) {
                Some((_, Ok(answered))) => return post_soon(node, from, answer_to(node, letter.id, answered), place),
                Some(slow) => Some(slow),
                None => return,
            },
            _ => None,
        };
        let node = node.clone();
        node.clone().shutdown().spawn(async move {
            let _place = place;
            let answered = match begun.or_else(|| begin(&node, &letter.payload)) {
                Some((_, Ok(answered))) => answered,
                Some((method, Err(slow))) => node.connections().finish(slow, &method, Some(limit)).await,
                None => return,
            };
            post(&node, from, answer_to(&node, letter.id, answered)).await;
        });
    }

    fn refuse(&self, node: &Node, from: Generation, id: u64) {
        bound_reached("cluster.max_calls");
        let Ok(place) = self.refusing.clone().try_acquire_owned() else { return dropped("call_too_many") };
        let refused = ActionError::of(ErrorKind::Unavailable, "the node answers as many calls as it may");
        post_soon(node, from, answer_to(node, id, Err(refused.into())), place);
    }

    /// Answers what a node of another make asks, if the connection is one of this node.
    pub(crate) fn receive_asked(&self, node: &Node, asked: Asked) {
        if node.connections().local(&asked.connection).is_none() {
            return; // every node was asked
        }
        let Ok(place) = self.running.clone().try_acquire_owned() else {
            bound_reached("cluster.max_calls");
            return dropped("asked_too_many");
        };
        let (node, limit) = (node.clone(), node.config().general.rpc_timeout);
        node.clone().shutdown().spawn(async move {
            let _place = place;
            let mut answer = Value::Null;
            for (method, args) in asked.methods {
                match node.connections().answer(Some(&asked.connection), &method, args, Some(limit)).await {
                    Ok(answered) => answer = answered,
                    // They wait for what never comes, as among themselves.
                    Err(error) => {
                        return warn!(id = %asked.connection, method, %error, "a foreign node is not answered");
                    }
                }
            }
            if let Some(foreign) = node.foreign()
                && let Err(error) = foreign.reply(&asked.reply_to, answer).await
            {
                debug!(%error, "an answer to a foreign node was not sent");
            }
        });
    }
}

/// Reads a call and begins it; none if it is unreadable.
fn begin(node: &Node, payload: &[u8]) -> Option<(String, Begun)> {
    let Some(Call { connection, method, args }) = Call::read(payload) else {
        dropped("call_unreadable");
        return None;
    };
    let begun = node.connections().begin(connection.as_ref(), &method, args);
    Some((method, begun))
}

fn answer_to(node: &Node, id: u64, answered: Result<Value, ApplyError>) -> Letter {
    let mut payload = Answer::from_result(answered).write();
    if let Err(error) = check_size(node, &payload, "the answer is too large for a call") {
        payload = Answer::from_result(Err(error.into())).write();
    }
    Letter { kind: LetterKind::Answer, id, deadline_ms: None, payload }
}

/// Sends an answer at once, or on a task where it has to wait for its turn. Until it is sent the call has its place, and a
/// node that stops waits for it.
fn post_soon(node: &Node, to: Generation, answer: Letter, place: OwnedSemaphorePermit) {
    let held = Box::new((place, node.shutdown().token()));
    let Err((answer, held)) = node.bus().try_post(Recipient::Node(to), answer, held) else { return };
    let node = node.clone();
    node.clone().shutdown().spawn(async move {
        let _held = held;
        post(&node, to, answer).await;
    });
}

async fn post(node: &Node, to: Generation, answer: Letter) {
    if let Err(error) = node.bus().post(Recipient::Node(to), answer).await {
        debug!(%error, %to, "an answer was not sent");
    }
}

pub(super) fn dropped(reason: &'static str) {
    metrics::counter!("phalanx_bus_dropped_total", "reason" => reason).increment(1);
}
