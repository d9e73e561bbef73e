//! Answering the calls of other nodes.

use std::time::Duration;

use serde_json::Value;
use tracing::{debug, warn};

use super::wire::{Answer, Call};
use super::{Calls, LONGEST, check_size};
use crate::backend::{Asked, Letter, LetterKind, Recipient};
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;
use crate::node::{Generation, Node};

/// Calls beyond those that may run that are refused at once; beyond these, whoever calls waits in vain.
pub(super) const REFUSED_AT_ONCE: usize = 256;

impl Calls {
    pub(super) fn receive_call(&self, node: &Node, from: Generation, letter: Letter) {
        let left = letter.deadline_ms.and_then(|deadline| deadline.checked_sub(node.now_ms())).filter(|left| *left > 0);
        let Some(left) = left else { return dropped("call_too_late") };
        let Some(call) = Call::read(&letter.payload) else { return dropped("call_unreadable") };
        let (place, may_run) = match self.running.clone().try_acquire_owned() {
            Ok(place) => (place, true),
            Err(_) => {
                bound_reached("cluster.max_calls");
                let Ok(place) = self.refusing.clone().try_acquire_owned() else { return dropped("call_too_many") };
                (place, false)
            }
        };
        let node = node.clone();
        node.clone().shutdown().spawn(async move {
            let _place = place;
            let answered = match may_run {
                true => {
                    let limit = Duration::from_millis(left).min(LONGEST);
                    node.connections().answer(call.connection.as_ref(), &call.method, call.args, Some(limit)).await
                }
                false => {
                    Err(ActionError::of(ErrorKind::Unavailable, "the node answers as many calls as it may").into())
                }
            };
            let mut payload = Answer::from_result(answered).write();
            if let Err(error) = check_size(&node, &payload, "the answer is too large for a call") {
                payload = Answer::from_result(Err(error.into())).write();
            }
            let letter = Letter { kind: LetterKind::Answer, id: letter.id, deadline_ms: None, payload };
            if let Err(error) = node.bus().post(Recipient::Node(from), letter).await {
                debug!(%error, %from, "an answer was not sent");
            }
        });
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

pub(super) fn dropped(reason: &'static str) {
    metrics::counter!("phalanx_bus_dropped_total", "reason" => reason).increment(1);
}
