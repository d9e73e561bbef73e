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
pub struct CallBody {
    /// The body while it is awaited.
    reading: Option<ReadingBody>,
    /// The body that has come; `None` for a call without one, whose head has all params.
    read: Option<Result<BodyRead, ActionError>>,
}

impl CallBody {
    /// No body: the call's head has all params.
    pub const fn absent() -> Self {
        Self { reading: None, read: None }
    }

    /// A body that may still be on its way.
    pub fn awaited(reading: ReadingBody) -> Self {
        Self { reading: Some(reading), read: None }
    }

    /// The bytes of a body that is there, for an action with `raw_body`.
    pub fn raw(params: Params, bytes: Bytes) -> Self {
        Self::awaited(Box::pin(async { Ok(BodyRead { raw: Some(bytes), ..BodyRead::new(params) }) }))
    }

    /// Reads the body, for the function of an action: the generated code calls it after the guards. If the body names
    /// another version, that version's guards and function run as well, instead of the rest of the called one.
    ///
    /// # Errors
    ///
    /// The outcome that replaces the function's: the body's error, or the outcome of the other version.
    pub async fn params(mut self, ctx: &Context) -> Result<ReadParams, Outcome> {
        self.arrive(ctx).await;
        let mut read = match self.read {
            None => return Ok(ReadParams(ParamsSource::Head(ctx.clone()))),
            Some(Ok(read)) => read,
            Some(Err(error)) => return Err(Err(error)),
        };
        let Some(other) = read.other_version.take() else {
            return Ok(ReadParams(ParamsSource::Body(read.params)));
        };
        let ctx = ctx.of_version(other.version);
        Err((other.run)(ctx, Self { reading: None, read: Some(Ok(read)) }).await)
    }

    /// Reads the body for a layer, and keeps it.
    pub(crate) async fn peek<'a>(&'a mut self, ctx: &'a Context) -> Result<&'a Params, ActionError> {
        self.arrive(ctx).await;
        match &self.read {
            None => Ok(ctx.head().params),
            Some(Ok(read)) => Ok(&read.params),
            Some(Err(error)) => Err(error.public_copy()),
        }
    }

    /// Awaits the body. The clock of the call stands still meanwhile. Cancel safe: what was read so far is kept.
    async fn arrive(&mut self, ctx: &Context) {
        let Some(reading) = &mut self.reading else { return };
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
        self.reading = None;
        if let Ok(read) = &read {
            if let Some(raw) = &read.raw {
                ctx.set_raw_body(raw.clone());
            }
            if let Some(other) = read.other_version {
                ctx.set_answering(other.version, other.limit(ctx.config()));
            }
        }
        self.read = Some(read);
    }
}

impl fmt::Debug for CallBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (&self.reading, &self.read) {
            (Some(_), _) => "a body that is awaited",
            (None, None) => "no body",
            (None, Some(Ok(_))) => "a body",
            (None, Some(Err(_))) => "a body that failed",
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
