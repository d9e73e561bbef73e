//! The body of a call: awaited after the guards, read at most once, and kept for the function.

use std::fmt;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

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
    pub other_version: Option<Arc<dyn OtherVersion>>,
}

impl BodyRead {
    /// A body of these params.
    pub const fn new(params: Params) -> Self {
        Self { params, raw: None, other_version: None }
    }
}

/// A version that a body names, instead of the called one.
pub trait OtherVersion: fmt::Debug + Send + Sync {
    /// Its definition.
    fn def(&self) -> &'static ActionDef;

    /// Runs it, within the call `ctx` of the called version and with the body that was read: its layers and guards are those
    /// that this call has not passed, then its function.
    fn run(self: Arc<Self>, ctx: &Context, body: CallBody) -> BoxFuture<'static, Outcome>;
}

/// Reads a body, as a transport does it. It is not polled before the guards have passed.
pub type ReadingBody = BoxFuture<'static, Result<BodyRead, ActionError>>;

/// The body of a call.
pub struct CallBody {
    state: BodyState,
    /// The limits that count when the body is read, if there are any.
    late: Option<LateCount>,
}

/// Whether the limits after the guards have counted a call. They count it when its body is read, which is the point after the
/// guards of the action; an action that is written by hand may not read it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LateCount(Arc<AtomicBool>);

impl LateCount {
    /// Whether the call is to be counted now: once.
    pub(crate) fn is_due(&self) -> bool {
        !self.0.swap(true, Relaxed)
    }

    /// Whether the body is gone, read or not.
    pub(crate) fn has_no_body(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Small, because it moves with the call from the transport to the function.
enum BodyState {
    /// The call has none: its head has all params.
    Absent,
    /// It may still be on its way.
    Awaited(ReadingBody),
    /// It was read before the function needed it: by a layer, or by the version that was called.
    Arrived(Box<Result<BodyRead, ActionError>>),
}

impl CallBody {
    /// No body: the call's head has all params.
    pub const fn absent() -> Self {
        Self::of(BodyState::Absent)
    }

    /// A body that may still be on its way.
    pub fn awaited(reading: ReadingBody) -> Self {
        Self::of(BodyState::Awaited(reading))
    }

    /// The bytes of a body that is there, for an action with `raw_body`.
    pub fn raw(params: Params, bytes: Bytes) -> Self {
        Self::awaited(Box::pin(async { Ok(BodyRead { raw: Some(bytes), ..BodyRead::new(params) }) }))
    }

    const fn of(state: BodyState) -> Self {
        Self { state, late: None }
    }

    /// Has limits count the call when this is read.
    pub(crate) fn counted_by(self, late: LateCount) -> Self {
        Self { late: Some(late), ..self }
    }

    /// Reads the body, for the function of an action: the generated code calls it after the guards. If the body names
    /// another version, the guards of that version and of its groups run as well, and its function instead of that of the
    /// called one.
    ///
    /// # Errors
    ///
    /// The outcome that replaces the function's: the body's error, or the outcome of the other version.
    pub async fn params(self, ctx: &Context) -> Result<ReadParams, Outcome> {
        if self.late.is_some_and(|late| late.is_due())
            && let Some(gate) = ctx.gate()
        {
            gate.pass_to_body(ctx).await.map_err(Err)?;
        }
        let read = match self.state {
            BodyState::Absent => return Ok(ReadParams(ParamsSource::Head(ctx.clone()))),
            BodyState::Awaited(mut reading) => arrival(&mut reading, ctx).await,
            BodyState::Arrived(read) => *read,
        };
        let mut read = read.map_err(Err)?;
        let Some(other) = read.other_version.take() else {
            return Ok(ReadParams(ParamsSource::Body(read.params)));
        };
        let body = Self::of(BodyState::Arrived(Box::new(Ok(read))));
        Err(other.run(ctx, body).await)
    }

    /// Reads the body for a layer, and keeps it. Cancel safe: what was read so far is kept too.
    pub(crate) async fn peek<'a>(&'a mut self, ctx: &'a Context) -> Result<&'a Params, ActionError> {
        if let BodyState::Awaited(reading) = &mut self.state {
            let read = arrival(reading, ctx).await;
            self.state = BodyState::Arrived(Box::new(read));
        }
        let BodyState::Arrived(read) = &self.state else { return Ok(ctx.head().params) };
        read.as_ref().as_ref().map(|read| &read.params).map_err(ActionError::public_copy)
    }
}

/// Awaits a body. The clock of the call stands still meanwhile.
async fn arrival(reading: &mut ReadingBody, ctx: &Context) -> Result<BodyRead, ActionError> {
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
    if let Ok(read) = &read {
        if let Some(raw) = &read.raw {
            ctx.set_raw_body(raw.clone());
        }
        if let Some(other) = &read.other_version {
            let def = other.def();
            ctx.set_answering(def.version, def.limit(ctx.config()));
        }
    }
    read
}

impl fmt::Debug for CallBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            BodyState::Awaited(_) => "a body that is awaited",
            BodyState::Absent => "no body",
            BodyState::Arrived(read) if read.is_ok() => "a body",
            BodyState::Arrived(_) => "a body that failed",
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
