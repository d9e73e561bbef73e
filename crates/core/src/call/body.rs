//! The body of a call: awaited after the guards, read at most once, and kept for the function.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;

use bytes::Bytes;

use crate::action::ActionDef;
use crate::answer::Outcome;
use crate::context::Context;
use crate::error::ActionError;
use crate::future::BoxFuture;
use crate::params::Params;

/// A body that arrived.
#[derive(Debug)]
#[non_exhaustive]
pub struct BodyRead {
    /// The params of the whole call: those of its head and of its body.
    pub params: Params,
    /// The bytes as they came, for an action with `raw_body`.
    pub raw: Option<Bytes>,
    /// The version that the body names, if it is another than the called one.
    pub other_version: Option<&'static ActionDef>,
}

impl BodyRead {
    /// A body of these params.
    pub const fn new(params: Params) -> Self {
        Self { params, raw: None, other_version: None }
    }
}

/// Reads a body, as a transport does it. It is not polled before the guards have passed.
pub type ReadingBody = BoxFuture<'static, Result<BodyRead, ActionError>>;

/// The body of a call.
pub struct CallBody(BodyState);

enum BodyState {
    /// There is none: the params of the head are all.
    Absent,
    Awaited(ReadingBody),
    Read(BodyRead),
    Failed(ActionError),
}

impl CallBody {
    /// No body: the call's head has all params.
    pub const fn absent() -> Self {
        Self(BodyState::Absent)
    }

    /// A body that may still be on its way.
    pub fn awaited(reading: ReadingBody) -> Self {
        Self(BodyState::Awaited(reading))
    }

    /// Reads the body, for the function of an action: the generated code calls it after the guards. If the body names
    /// another version, that version's guards and function run instead.
    ///
    /// # Errors
    ///
    /// The outcome that replaces the function's: the body's error, or the outcome of the other version.
    pub async fn params(mut self, ctx: &Context) -> Result<ReadParams, Outcome> {
        self.arrive(ctx).await;
        let mut read = match self.0 {
            BodyState::Absent => return Ok(ReadParams(ParamsSource::Head(ctx.clone()))),
            BodyState::Read(read) => read,
            BodyState::Failed(error) => return Err(Err(error)),
            BodyState::Awaited(_) => return Err(Err(ActionError::internal("the body was not awaited"))),
        };
        let Some(other) = read.other_version.take() else {
            return Ok(ReadParams(ParamsSource::Body(read.params)));
        };
        let ctx = ctx.of_version(other.version);
        Err((other.run)(ctx, Self(BodyState::Read(read))).await)
    }

    /// Reads the body for a layer, and keeps it.
    pub(crate) async fn peek<'a>(&'a mut self, ctx: &'a Context) -> Result<&'a Params, ActionError> {
        self.arrive(ctx).await;
        match &self.0 {
            BodyState::Absent => Ok(ctx.head().params),
            BodyState::Read(read) => Ok(&read.params),
            BodyState::Failed(error) => Err(error.public_copy()),
            BodyState::Awaited(_) => Err(ActionError::internal("the body was not awaited")),
        }
    }

    /// Awaits the body. The clock of the call stands still meanwhile. Cancel safe: what was read so far is kept.
    async fn arrive(&mut self, ctx: &Context) {
        let BodyState::Awaited(reading) = &mut self.0 else { return };
        let mut paused = None;
        let read = poll_fn(|task| {
            let polled = reading.as_mut().poll(task);
            if polled.is_pending() {
                paused.get_or_insert_with(|| ctx.clock().pause());
            }
            polled
        });
        let read = read.await;
        drop(paused);
        self.0 = match read {
            Ok(read) => {
                if let Some(raw) = &read.raw {
                    ctx.set_raw_body(raw.clone());
                }
                if let Some(version) = read.other_version {
                    ctx.set_answering(version.version);
                }
                BodyState::Read(read)
            }
            Err(error) => BodyState::Failed(error),
        };
    }
}

impl fmt::Debug for CallBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            BodyState::Absent => "no body",
            BodyState::Awaited(_) => "a body that is awaited",
            BodyState::Read(_) => "a body",
            BodyState::Failed(_) => "a body that failed",
        })
    }
}

/// The params of a call whose body was read. They keep the files of the call: the last handle deletes them.
#[derive(Debug)]
pub struct ReadParams(ParamsSource);

#[derive(Debug)]
enum ParamsSource {
    Head(Context),
    Body(Params),
}

impl Deref for ReadParams {
    type Target = Params;

    fn deref(&self) -> &Params {
        match &self.0 {
            ParamsSource::Head(ctx) => ctx.head().params,
            ParamsSource::Body(params) => params,
        }
    }
}
