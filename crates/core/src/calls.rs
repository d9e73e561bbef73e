//! Calls between nodes: those that wait here for an answer, and answering those of others.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::action::Deadline;
use crate::backend::{Asked, BackendError, Letter, LetterKind, NodeRecord, Recipient};
use crate::connection::ConnectionId;
use crate::connections::{ApplyError, BuiltIn};
use crate::error::{ActionError, ErrorKind};
use crate::node::{Generation, Node};

mod wire;

use wire::{Answer, Call};

/// The longest that a call to another node waits, whatever its deadline says.
const LONGEST: Duration = Duration::from_secs(3600);

/// The calls of this node to others, and how many of theirs run here.
#[derive(Debug)]
pub(crate) struct Calls {
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    most: usize,
    running: Arc<Semaphore>,
}

#[derive(Debug)]
struct Waiting {
    /// Who is to answer; `None`: all nodes.
    there: Option<Generation>,
    answers: mpsc::Sender<(Generation, Answer)>,
}

/// A call that waits; dropped, it waits no more.
struct Open<'a> {
    calls: &'a Calls,
    id: u64,
    answers: mpsc::Receiver<(Generation, Answer)>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.calls.waiting().remove(&self.id);
    }
}

impl Calls {
    /// At most `most` calls wait for others, and as many of others run here.
    pub(crate) fn new(most: usize) -> Self {
        Self { waiting: Mutex::default(), next: AtomicU64::new(1), most, running: Arc::new(Semaphore::new(most)) }
    }

    /// Calls a method on a connection of another node, or on the node itself.
    pub(crate) async fn to_node(
        &self,
        node: &Node,
        there: Generation,
        connection: Option<&ConnectionId>,
        method: &str,
        args: Value,
        limit: Option<Duration>,
    ) -> Result<Value, ApplyError> {
        if node.is_called(there) {
            return node.connections().answer(connection, method, args, limit).await;
        }
        let limit = limit_of(node, method, limit);
        let deadline = Instant::now() + limit;
        let mut open = self.open(Some(there), 1)?;
        let letter = self.letter(node, open.id, connection, method, args, limit)?;
        let posted = timeout_at(deadline, node.bus().post(Recipient::Node(there), letter)).await;
        let posted = posted.map_err(|_| ApplyError::Late)?.map_err(ActionError::from)?;
        if !posted.on_record {
            return Err(ApplyError::NotFound);
        }
        if !posted.received {
            return Err(ApplyError::Unreachable);
        }
        match timeout_at(deadline, open.answers.recv()).await {
            Ok(Some((_, answer))) => answer.into_result(),
            // Late, or the generation was reaped while we waited.
            Ok(None) | Err(_) => Err(ApplyError::Late),
        }
    }

    /// Calls a connection whose id names no node: its owner answers, all others say that it is not theirs. Where there
    /// are nodes of another make, it may be one of theirs, and they do not say.
    pub(crate) async fn to_owner(
        &self,
        node: &Node,
        connection: &ConnectionId,
        method: &str,
        args: Value,
        limit: Option<Duration>,
    ) -> Result<Value, ApplyError> {
        let limit = limit_of(node, method, limit);
        let Some(foreign) = node.foreign() else {
            return self.to_one_of_ours(node, connection, method, args, limit).await;
        };
        // What an application added is known to its own nodes only.
        let Ok(call) = BuiltIn::read(method, args.clone())? else {
            return self.to_one_of_ours(node, connection, method, args, limit).await;
        };
        let ours = pin!(self.to_one_of_ours(node, connection, method, args, limit));
        let theirs = foreign.apply(connection, call, limit);
        match select(ours, theirs).await {
            Either::Left((Err(ApplyError::NotFound), theirs)) => theirs.await,
            Either::Left((Err(ApplyError::Late), theirs)) => theirs.await.map_err(|_| ApplyError::Late),
            Either::Left((answer, _)) | Either::Right((answer @ Ok(_), _)) => answer,
            Either::Right((Err(refusal), ours)) => match ours.await {
                Err(ApplyError::NotFound) => Err(refusal),
                answer => answer,
            },
        }
    }

    async fn to_one_of_ours(
        &self,
        node: &Node,
        connection: &ConnectionId,
        method: &str,
        args: Value,
        limit: Duration,
    ) -> Result<Value, ApplyError> {
        let nodes = node.membership().nodes().await.map_err(ActionError::from)?;
        let heard = self.to_all(node, &nodes, Some(connection), method, args, limit).await?;
        let all_answered = nodes.iter().all(|record| heard.contains_key(&record.generation));
        let owner = heard.into_values().find(|answer| !matches!(answer, Err(ApplyError::NotFound)));
        owner.unwrap_or(Err(if all_answered { ApplyError::NotFound } else { ApplyError::Late }))
    }

    /// Calls all nodes at once; with a connection, until its owner has answered.
    pub(crate) async fn to_all(
        &self,
        node: &Node,
        nodes: &[NodeRecord],
        connection: Option<&ConnectionId>,
        method: &str,
        args: Value,
        limit: Duration,
    ) -> Result<BTreeMap<Generation, Result<Value, ApplyError>>, ActionError> {
        let deadline = Instant::now() + limit;
        let own = node.generation();
        let others = nodes.iter().filter(|record| record.generation != own).count();
        let mut heard = BTreeMap::new();
        let mut open = self.open(None, others.max(1))?;
        if others > 0 {
            let letter = self.letter(node, open.id, connection, method, args.clone(), limit)?;
            node.bus().post(Recipient::Everyone, letter).await?;
        }
        if nodes.iter().any(|record| record.generation == own) {
            heard.insert(own, node.connections().answer(connection, method, args, Some(limit)).await);
        }
        let is_owner =
            |answer: &Result<Value, ApplyError>| connection.is_some() && !matches!(answer, Err(ApplyError::NotFound));
        while heard.len() < nodes.len() && !heard.values().any(is_owner) {
            match timeout_at(deadline, open.answers.recv()).await {
                Ok(Some((from, answer))) if nodes.iter().any(|record| record.generation == from) => {
                    heard.insert(from, answer.into_result());
                }
                Ok(Some(_)) => {} // it came after we asked who is there
                Ok(None) | Err(_) => break,
            }
        }
        Ok(heard)
    }

    /// Takes a letter off the bus: an answer that somebody waits for, or a call that is answered on a task of its own.
    pub(crate) fn receive(&self, node: &Node, from: Generation, letter: Letter) {
        match letter.kind {
            // Not asked for by its name, which may be new: a node is given another one when it was found dead.
            LetterKind::Answer => self.receive_answer(from, &letter),
            LetterKind::Call if node.is_called(from) => {} // all nodes were called, and this one knows already
            LetterKind::Call => self.receive_call(node, from, letter),
            LetterKind::Event => node.topics().tell(&letter.payload),
        }
    }

    fn receive_answer(&self, from: Generation, letter: &Letter) {
        let answers = {
            let waiting = self.waiting();
            let Some(call) = waiting.get(&letter.id) else { return }; // late, or given up
            call.answers.clone()
        };
        match Answer::read(&letter.payload) {
            // It holds one answer of each node; a second one of a node finds no place.
            Some(answer) => drop(answers.try_send((from, answer))),
            None => dropped("answer_unreadable"),
        }
    }

    fn receive_call(&self, node: &Node, from: Generation, letter: Letter) {
        let left = letter.deadline_ms.and_then(|deadline| deadline.checked_sub(node.now_ms())).filter(|left| *left > 0);
        let Some(left) = left else { return dropped("call_too_late") };
        let Some(call) = Call::read(&letter.payload) else { return dropped("call_unreadable") };
        let place = self.running.clone().try_acquire_owned();
        let node = node.clone();
        node.clone().shutdown().spawn(async move {
            let answered = match place {
                Ok(_) => {
                    let limit = Duration::from_millis(left).min(LONGEST);
                    node.connections().answer(call.connection.as_ref(), &call.method, call.args, Some(limit)).await
                }
                Err(_) => {
                    Err(ActionError::of(ErrorKind::Unavailable, "the node answers as many calls as it may").into())
                }
            };
            let payload = Answer::from_result(answered).write();
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
        let Ok(place) = self.running.clone().try_acquire_owned() else { return dropped("asked_too_many") };
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

    /// Ends the wait of calls to generations that are no more.
    pub(crate) fn fail_those_to_the_dead(&self, nodes: &[NodeRecord]) {
        let lives = |there: Generation| {
            nodes.iter().any(|record| record.generation == there || record.earlier.contains(&there))
        };
        self.waiting().retain(|_, call| call.there.is_none_or(lives));
    }

    /// Ends the wait of all calls: their answers may have been missed.
    pub(crate) fn fail_all(&self) {
        self.waiting().clear();
    }

    fn open(&self, there: Option<Generation>, answers: usize) -> Result<Open<'_>, ActionError> {
        let (sender, receiver) = mpsc::channel(answers);
        let id = self.next.fetch_add(1, Relaxed);
        let mut waiting = self.waiting();
        if waiting.len() >= self.most {
            return Err(ActionError::of(ErrorKind::Unavailable, "the node waits for as many calls as it may")
                .with_retry_after(Duration::from_secs(1)));
        }
        waiting.insert(id, Waiting { there, answers: sender });
        Ok(Open { calls: self, id, answers: receiver })
    }

    fn letter(
        &self,
        node: &Node,
        id: u64,
        connection: Option<&ConnectionId>,
        method: &str,
        args: Value,
        limit: Duration,
    ) -> Result<Letter, ActionError> {
        let payload = Call { connection: connection.cloned(), method: method.to_owned(), args }.write();
        if payload.len() as u64 > node.config().cluster.max_call.as_u64() {
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, "the arguments are too large for a call"));
        }
        let deadline_ms = Some(node.now_ms() + u64::try_from(limit.as_millis()).unwrap_or(u64::MAX / 2));
        Ok(Letter { kind: LetterKind::Call, id, deadline_ms, payload })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a call to another node waits: what the caller says, else the method, else the settings.
fn limit_of(node: &Node, method: &str, limit: Option<Duration>) -> Duration {
    let own = node.registry().remote(method).map_or(Deadline::Default, |def| def.deadline);
    let limit = match (limit, own) {
        (Some(limit), _) | (None, Deadline::After(limit)) => limit,
        (None, Deadline::Default) => node.config().general.rpc_timeout,
        (None, Deadline::Never) => LONGEST,
    };
    limit.min(LONGEST)
}

fn dropped(reason: &'static str) {
    metrics::counter!("phalanx_bus_dropped_total", "reason" => reason).increment(1);
}

impl From<BackendError> for ApplyError {
    fn from(error: BackendError) -> Self {
        Self::Refused(error.into())
    }
}
