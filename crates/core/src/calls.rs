//! Calls between nodes: those that wait here for an answer. Answering those of others is in `answering.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::action::Deadline;
use crate::backend::{BackendError, Letter, LetterKind, NodeRecord, Recipient};
use crate::connection::ConnectionId;
use crate::connections::{ApplyError, BuiltIn};
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;
use crate::node::{Generation, Node};

mod answering;
mod wire;

use wire::{Answer, Asking};

/// The longest that a call to another node waits, whatever its deadline says.
pub(crate) const LONGEST: Duration = Duration::from_secs(3600);

/// The calls of this node to others, and how many of theirs run here.
#[derive(Debug)]
pub(crate) struct Calls {
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    most: usize,
    running: Arc<Semaphore>,
    refusing: Arc<Semaphore>,
}

/// What comes in for a call to many; `None` of a generation that is no more.
type Heard = (Generation, Option<Bytes>);

/// Who is to answer, and where the answer goes as it came: whoever waits reads it, not the task that takes it off the bus.
#[derive(Debug)]
enum Waiting {
    One(Generation, oneshot::Sender<Bytes>),
    Many(Vec<Generation>, mpsc::Sender<Heard>),
}

/// A call that waits; dropped, it waits no more.
struct Open<'a> {
    calls: &'a Calls,
    id: u64,
}

/// What became of a call to all.
#[derive(Debug, Default)]
pub(crate) struct FromAll {
    pub(crate) answers: BTreeMap<Generation, Result<Value, ApplyError>>,
    /// Who lives, as far as is known, and did not answer.
    silent: BTreeSet<Generation>,
    /// Why nobody else may have heard the call.
    unsent: Option<BackendError>,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.calls.waiting().remove(&self.id);
    }
}

impl Calls {
    /// At most `most` calls wait for others, and as many of others run here.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            next: AtomicU64::new(1),
            most,
            running: Arc::new(Semaphore::new(most)),
            refusing: Arc::new(Semaphore::new(answering::REFUSED_AT_ONCE)),
        }
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
        let (sender, answer) = oneshot::channel();
        let open = self.open(Waiting::One(there, sender))?;
        let letter = self.letter(node, open.id, connection, method, &args, limit)?;
        let asked = async {
            let posted = node.bus().post(Recipient::Node(there), letter).await.map_err(ActionError::from)?;
            if !posted.on_record {
                return Err(ApplyError::NotFound);
            }
            if !posted.received {
                return Err(ApplyError::Unreachable);
            }
            // No answer where meanwhile the generation was reaped, or the subscription lost.
            let answer = answer.await.map_err(|_| ApplyError::Late)?;
            Answer::read(&answer).map_or(Err(ApplyError::Late), Answer::into_result)
        };
        timeout_at(deadline, asked).await.unwrap_or(Err(ApplyError::Late))
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
        let deadline = Instant::now() + limit;
        let nodes = timeout_at(deadline, node.membership().nodes()).await;
        let nodes = nodes.map_err(|_| ApplyError::Late)?.map_err(ActionError::from)?;
        let FromAll { answers, silent, unsent } =
            self.to_all(node, &nodes, Some(connection), method, args, deadline).await?;
        match answers.into_values().find(is_of_owner) {
            Some(answer) => answer,
            None if silent.is_empty() => Err(ApplyError::NotFound),
            None => Err(unsent.map_or(ApplyError::Late, ApplyError::from)),
        }
    }

    /// Calls all nodes at once; with a connection, until its owner has answered.
    pub(crate) async fn to_all(
        &self,
        node: &Node,
        nodes: &[NodeRecord],
        connection: Option<&ConnectionId>,
        method: &str,
        args: Value,
        deadline: Instant,
    ) -> Result<FromAll, ActionError> {
        let (own, others): (Vec<_>, Vec<_>) =
            nodes.iter().map(|record| record.generation).partition(|generation| node.is_called(*generation));
        let limit = deadline.saturating_duration_since(Instant::now());
        // Room for each node's answer; whoever answers more than once finds none in the end.
        let (sender, mut answers) = mpsc::channel((2 * others.len()).max(1));
        let open = self.open(Waiting::Many(others.clone(), sender))?;
        let letter = self.letter(node, open.id, connection, method, &args, limit)?;
        let mut heard = FromAll { silent: others.into_iter().collect(), ..FromAll::default() };
        let here = async {
            match own.first() {
                Some(own) => Some((*own, node.connections().answer(connection, method, args, Some(limit)).await)),
                None => None,
            }
        };
        let there = async {
            if heard.silent.is_empty() {
                return;
            }
            match timeout_at(deadline, node.bus().post(Recipient::Everyone, letter)).await {
                Ok(Ok(_)) => hear_all(&mut answers, &mut heard, connection.is_some(), deadline).await,
                Ok(Err(error)) => heard.unsent = Some(error),
                Err(_) => {}
            }
        };
        let (here, ()) = tokio::join!(here, there);
        heard.answers.extend(here);
        Ok(heard)
    }

    /// Takes a letter off the bus: an answer that somebody waits for, or a call that is answered on a task of its own.
    pub(crate) fn receive(&self, node: &Node, from: Generation, letter: Letter) {
        match letter.kind {
            // Not asked for by its name, which may be new: a node is given another one when it was found dead.
            LetterKind::Answer => self.receive_answer(from, letter),
            LetterKind::Call if node.is_called(from) => {} // all nodes were called, and this one knows already
            LetterKind::Call => self.receive_call(node, from, letter),
            LetterKind::Event => node.topics().tell(&letter.payload),
        }
    }

    fn receive_answer(&self, from: Generation, letter: Letter) {
        let mut waiting = self.waiting();
        match waiting.get(&letter.id) {
            Some(Waiting::Many(_, answers)) => drop(answers.try_send((from, Some(letter.payload)))),
            Some(Waiting::One(..)) => {
                if let Some(Waiting::One(_, answer)) = waiting.remove(&letter.id) {
                    let _ = answer.send(letter.payload);
                }
            }
            None => {} // late, or given up
        }
    }

    /// Ends the wait for generations that are no more.
    pub(crate) fn fail_those_to_the_dead(&self, nodes: &[NodeRecord]) {
        let lives = |there: &Generation| {
            nodes.iter().any(|record| record.generation == *there || record.earlier.contains(there))
        };
        self.waiting().retain(|_, waiting| match waiting {
            Waiting::One(there, _) => lives(there),
            Waiting::Many(asked, answers) => {
                for dead in asked.extract_if(.., |there| !lives(there)) {
                    let _ = answers.try_send((dead, None));
                }
                true
            }
        });
    }

    /// Ends the wait of all calls: their answers will be missed.
    pub(crate) fn fail_all(&self) {
        self.waiting().clear();
    }

    fn open(&self, call: Waiting) -> Result<Open<'_>, ActionError> {
        let id = self.next.fetch_add(1, Relaxed);
        let mut waiting = self.waiting();
        if waiting.len() >= self.most {
            bound_reached("cluster.max_calls");
            return Err(ActionError::of(ErrorKind::Unavailable, "the node waits for as many calls as it may")
                .with_retry_after(Duration::from_secs(1)));
        }
        waiting.insert(id, call);
        Ok(Open { calls: self, id })
    }

    fn letter(
        &self,
        node: &Node,
        id: u64,
        connection: Option<&ConnectionId>,
        method: &str,
        args: &Value,
        limit: Duration,
    ) -> Result<Letter, ActionError> {
        let payload = Asking { connection: connection.map(ConnectionId::as_str), method, args }.write();
        check_size(node, &payload, "the arguments are too large for a call")?;
        let deadline_ms = Some(node.now_ms() + limit.min(LONGEST).as_millis() as u64);
        Ok(Letter { kind: LetterKind::Call, id, deadline_ms, payload })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes answers until all are there, or the owner's is.
async fn hear_all(answers: &mut mpsc::Receiver<Heard>, heard: &mut FromAll, until_owner: bool, deadline: Instant) {
    while !heard.silent.is_empty() {
        let Ok(Some((from, answer))) = timeout_at(deadline, answers.recv()).await else { return };
        let answer = match answer {
            Some(answer) => Answer::read(&answer).map(Answer::into_result),
            None => {
                heard.silent.remove(&from);
                continue;
            }
        };
        let Some(answer) = answer else { continue };
        let was_asked = heard.silent.remove(&from);
        // An owner may have been given another name since we asked who is there.
        let is_owner = until_owner && is_of_owner(&answer);
        if was_asked || is_owner {
            heard.answers.insert(from, answer);
        }
        if is_owner {
            return;
        }
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

/// What goes from one node to another has one bound.
pub(crate) fn check_size(node: &Node, payload: &[u8], message: &'static str) -> Result<(), ActionError> {
    if payload.len() as u64 <= node.config().cluster.max_call.as_u64() {
        return Ok(());
    }
    bound_reached("cluster.max_call");
    Err(ActionError::of(ErrorKind::PayloadTooLarge, message))
}

/// Whether an answer is its owner's, and not of one who does not know the connection.
fn is_of_owner(answer: &Result<Value, ApplyError>) -> bool {
    !matches!(answer, Err(ApplyError::NotFound))
}

impl From<BackendError> for ApplyError {
    fn from(error: BackendError) -> Self {
        Self::Refused(error.into())
    }
}
