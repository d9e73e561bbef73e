//! Publishes everything of a node over one connection from one task, sealed and numbered as it is written.
//!
//! What a connection lost half-way is sent again over the next one, the very same bytes: whoever heard a message before
//! sees its number and drops it. That nobody hears the second does not say that nobody heard the first.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{AsyncConnectionConfig, Pipeline, RedisError, RedisResult, Value, from_redis_value};
use phalanx_core::backend::{BackendError, Clock, Posted};
use phalanx_core::{Generation, bound_reached};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::client::{Client, fault};
use crate::clock::RedisClock;
use crate::envelope::{Draft, Sealer, Sender};
use crate::keys::Keys;
use crate::own_name::OwnName;

/// Messages that wait for the task; beyond, publishers wait, at most for the time a command has.
const QUEUE: usize = 1024;

/// Messages that one pipeline takes.
const BATCH: usize = 128;

/// The pause before a connection is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// The end at which messages go in.
#[derive(Clone)]
pub(crate) struct Publisher {
    jobs: mpsc::Sender<Job>,
    timeout: Duration,
}

struct Job {
    channel: String,
    text: Text,
    /// Whose name is looked up beside it.
    recipient: Option<Generation>,
    done: oneshot::Sender<Result<Posted, BackendError>>,
}

/// What is published.
enum Text {
    /// For our nodes.
    Sealed(Draft),
    /// For our nodes, and in the same step for foreign ones: a channel, and a message as it stands.
    Both(Draft, String, Vec<u8>),
    /// For foreign nodes.
    Clear(Vec<u8>),
}

/// What the task needs to seal and to write.
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) keys: Keys,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Arc<RedisClock>,
    pub(crate) node: String,
    pub(crate) own: OwnName,
}

impl Publisher {
    /// A publisher and its task, which runs until the last publisher is gone.
    pub(crate) fn new(writer: Writer) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, waiting) = mpsc::channel(QUEUE);
        let timeout = writer.client.timeout();
        (Self { jobs, timeout }, Session { writer, connection: None, numbered: None, seq: 0 }.run(waiting))
    }

    /// Publishes a message and looks up its recipient, in one pipeline.
    pub(crate) async fn publish(
        &self,
        channel: String,
        draft: Draft,
        recipient: Option<Generation>,
    ) -> Result<Posted, BackendError> {
        self.hand_over(channel, Text::Sealed(draft), recipient).await
    }

    /// Publishes a message, and in the same step one for foreign nodes: everybody hears all messages in one order.
    pub(crate) async fn publish_both(
        &self,
        channel: String,
        draft: Draft,
        foreign: (String, Vec<u8>),
    ) -> Result<(), BackendError> {
        self.hand_over(channel, Text::Both(draft, foreign.0, foreign.1), None).await.map(drop)
    }

    /// Publishes a message for foreign nodes as it stands.
    pub(crate) async fn publish_in_clear(&self, channel: String, message: Vec<u8>) -> Result<(), BackendError> {
        self.hand_over(channel, Text::Clear(message), None).await.map(drop)
    }

    async fn hand_over(
        &self,
        channel: String,
        text: Text,
        recipient: Option<Generation>,
    ) -> Result<Posted, BackendError> {
        let (done, posted) = oneshot::channel();
        if self.jobs.capacity() == 0 {
            bound_reached("bus.publisher_queue");
        }
        let publishing = async {
            let closed = || BackendError::unavailable("the bus is closed");
            self.jobs.send(Job { channel, text, recipient, done }).await.map_err(|_| closed())?;
            posted.await.map_err(|_| closed())?
        };
        match timeout(self.timeout, publishing).await {
            Ok(posted) => posted,
            Err(_) => Err(BackendError::unavailable("redis did not take the message in time")),
        }
    }
}

/// What Redis answered to a pipeline.
struct Sent {
    answers: Vec<RedisResult<Value>>,
    /// It may have run before, over a connection that broke.
    repeated: bool,
}

struct Session {
    writer: Writer,
    connection: Option<MultiplexedConnection>,
    numbered: Option<Generation>,
    seq: u64,
}

impl Session {
    async fn run(mut self, mut waiting: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(BATCH);
        while waiting.recv_many(&mut jobs, BATCH).await > 0 {
            jobs.retain(|job| !job.done.is_closed()); // who gave up was told that it is unknown; it never happened
            if jobs.is_empty() {
                continue;
            }
            let Some(generation) = self.writer.own.get() else {
                let unnamed = || BackendError::unavailable("the node has no name yet");
                jobs.drain(..).for_each(|job| drop(job.done.send(Err(unnamed()))));
                continue;
            };
            let pipeline = self.write(generation, &jobs);
            let sent = self.send(&pipeline).await;
            self.answer(&mut jobs, sent);
        }
    }

    /// Seals and numbers; a new name begins anew with 1.
    fn write(&mut self, generation: Generation, jobs: &[Job]) -> Pipeline {
        if self.numbered.replace(generation) != Some(generation) {
            self.seq = 0;
        }
        let mut pipeline = Pipeline::with_capacity(jobs.len() * 2);
        pipeline.ignore_errors();
        let at_ms = self.writer.clock.now_ms();
        for job in jobs {
            let mut seal = |draft| {
                self.seq += 1;
                let sender = Sender { generation, node: &self.writer.node, at_ms, seq: self.seq };
                self.writer.sealer.seal(&job.channel, sender, draft)
            };
            match &job.text {
                Text::Sealed(draft) => drop(pipeline.cmd("PUBLISH").arg(&job.channel).arg(seal(draft))),
                Text::Clear(message) => drop(pipeline.cmd("PUBLISH").arg(&job.channel).arg(message)),
                Text::Both(draft, channel, message) => {
                    pipeline.cmd("MULTI");
                    pipeline.cmd("PUBLISH").arg(&job.channel).arg(seal(draft));
                    pipeline.cmd("PUBLISH").arg(channel).arg(message);
                    pipeline.cmd("EXEC");
                }
            }
            if let Some(recipient) = job.recipient {
                pipeline.cmd("HEXISTS").arg(self.writer.keys.names()).arg(recipient.as_str());
            }
        }
        pipeline
    }

    /// Sends a pipeline, again and again until its time is over.
    async fn send(&mut self, pipeline: &Pipeline) -> Result<Sent, RedisError> {
        let deadline = Instant::now() + self.writer.client.timeout();
        let mut repeated = false;
        loop {
            let error = match timeout_at(deadline, self.try_send(pipeline)).await {
                Ok(Ok(answers)) => return Ok(Sent { answers, repeated }),
                Ok(Err(error)) => error,
                Err(elapsed) => std::io::Error::from(elapsed).into(),
            };
            let was_connected = self.connection.take().is_some();
            repeated |= was_connected;
            if !was_connected || Instant::now() + PAUSE < deadline {
                sleep(PAUSE.min(deadline - Instant::now())).await;
            }
            if Instant::now() >= deadline {
                return Err(error);
            }
        }
    }

    async fn try_send(&mut self, pipeline: &Pipeline) -> Result<Vec<RedisResult<Value>>, RedisError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let limit = Some(self.writer.client.timeout());
                let config = AsyncConnectionConfig::new().set_connection_timeout(limit).set_response_timeout(limit);
                let client = self.writer.client.own();
                none.insert(client.get_multiplexed_async_connection_with_config(&config).await?)
            }
        };
        pipeline.query_async(connection).await
    }

    fn answer(&self, jobs: &mut Vec<Job>, sent: Result<Sent, RedisError>) {
        let lost = |error: &RedisError| BackendError::unavailable(error.to_string());
        let Sent { answers, repeated } = match sent {
            Ok(sent) => sent,
            Err(error) => return jobs.drain(..).for_each(|job| drop(job.done.send(Err(lost(&error))))),
        };
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or_else(|| Ok(Value::Nil));
        for job in jobs.drain(..) {
            let receivers = match job.text {
                Text::Sealed(_) | Text::Clear(_) => number(next()),
                Text::Both(..) => {
                    let queued = [next(), next(), next()];
                    let refused = queued.into_iter().find_map(Result::err);
                    let executed = next().and_then(|answer| Ok(from_redis_value::<Vec<u64>>(answer)?));
                    refused.map_or(executed, Err).map(|receivers| receivers.first().copied().unwrap_or(0))
                }
            };
            let known = job.recipient.map(|_| number(next()));
            let posted = receivers.and_then(|receivers| {
                let on_record = known.transpose()?.is_none_or(|known| known > 0);
                Ok(Posted { received: receivers > 0, on_record })
            });
            let posted = match posted {
                Ok(Posted { received: false, on_record: true }) if repeated && job.recipient.is_some() => {
                    Err(BackendError::unavailable("it was sent twice, and whether the first was heard is unknown"))
                }
                posted => posted.map_err(|error| fault(error, &job.channel)),
            };
            // Who no longer waits was told that it is unknown.
            let _ = job.done.send(posted);
        }
    }
}

fn number(answer: RedisResult<Value>) -> RedisResult<u64> {
    Ok(from_redis_value(answer?)?)
}
