//! The origin of a job: the request in which it was enqueued, its trace, and values of the application's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{Span, info_span};

use crate::error::{ActionError, ErrorKind};
use crate::job::JobMeta;
use crate::metrics::bound_reached;

/// Most bytes of the origin that is stored with a job.
pub const MAX_META_BYTES: usize = 4 * 1024;

/// Facts about the enqueuer of a job, handed on to the jobs that its attempts enqueue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobOrigin {
    /// The id of the request.
    pub request: Option<Arc<str>>,
    /// Its trace, in the form of W3C.
    pub traceparent: Option<Arc<str>>,
    /// The values of the enqueues.
    pub values: BTreeMap<String, String>,
}

impl JobOrigin {
    /// The origin that a job's text has.
    pub fn read(meta: Option<&JobMeta<'_>>) -> Self {
        let Some(meta) = meta else { return Self::default() };
        let own = |text: Option<&str>| text.map(Arc::from);
        let origin = Self {
            request: own(meta.request.as_deref()),
            traceparent: own(meta.traceparent.as_deref().filter(|trace| is_traceparent(trace))),
            values: meta.values.clone(),
        };
        // Another program's may be too large to be handed on.
        if origin.bytes() > MAX_META_BYTES { Self::default() } else { origin }
    }

    /// How many bytes it has, with all names and values.
    fn bytes(&self) -> usize {
        let texts = [&self.request, &self.traceparent].into_iter().flatten().map(|text| text.len());
        texts.chain(self.values.iter().map(|(name, value)| name.len() + value.len())).sum()
    }

    /// The same with these values, which replace those of the same names, as it is stored. `None` if there is nothing.
    pub(super) fn meta(&self, values: &BTreeMap<String, String>) -> Result<Option<JobMeta<'_>>, ActionError> {
        let mut all = self.clone();
        all.values.extend(values.iter().map(|(name, value)| (name.clone(), value.clone())));
        let bytes = all.bytes();
        if bytes > MAX_META_BYTES {
            bound_reached("job_meta");
            let message = format!("the meta of a job, with all names and values, has {MAX_META_BYTES} bytes at most");
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, message));
        }
        let text = |text: &'_ Option<Arc<str>>| text.as_deref().map(str::to_owned).map(Into::into);
        let meta = JobMeta { request: text(&self.request), traceparent: text(&self.traceparent), values: all.values };
        Ok((bytes > 0).then_some(meta))
    }

    /// The span of log lines of an attempt; none for a job that nothing is known of, which is not worth its cost.
    pub(crate) fn span(&self, task: &'static str, job: &str) -> Span {
        match (&self.request, &self.traceparent) {
            (None, None) => Span::none(),
            (request, traceparent) => {
                info_span!("attempt", task, job, request = request.as_deref(), traceparent = traceparent.as_deref())
            }
        }
    }
}

/// Whether a text has the form of W3C: version, trace, parent, flags, in lower hexadecimal digits.
pub(crate) fn is_traceparent(text: &str) -> bool {
    let is_hex =
        |part: &str, length| part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    match text.split('-').collect::<Vec<_>>()[..] {
        [version, trace, parent, flags] => {
            is_hex(version, 2)
                && version != "ff"
                && is_hex(trace, 32)
                && is_hex(parent, 16)
                && is_hex(flags, 2)
                && !is_zero(trace)
                && !is_zero(parent)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn only_a_trace_of_the_form_of_w3c_is_handed_on() {
        assert!(is_traceparent(TRACE));
        for wrong in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert!(!is_traceparent(wrong), "{wrong}");
        }
    }

    /// Handed on, it would have each enqueue of the attempt refused.
    #[test]
    fn the_meta_of_another_program_is_left_out_beyond_the_bound() {
        let meta = |bytes: usize| JobMeta {
            request: Some("r".into()),
            traceparent: None,
            values: BTreeMap::from([("v".to_owned(), "x".repeat(bytes - 2))]),
        };
        assert_eq!(JobOrigin::read(Some(&meta(MAX_META_BYTES + 1))), JobOrigin::default());
        let read = JobOrigin::read(Some(&meta(MAX_META_BYTES)));
        assert_eq!((read.bytes(), read.meta(&BTreeMap::new()).is_ok()), (MAX_META_BYTES, true));
    }

    #[test]
    fn values_replace_those_of_the_same_name_and_have_a_bound() {
        let value = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let origin =
            JobOrigin { request: Some("r-1".into()), traceparent: Some(TRACE.into()), values: value("tenant", "a") };
        let meta = origin.meta(&value("tenant", "b")).unwrap();
        let read = JobOrigin::read(meta.as_ref());
        assert_eq!(read, JobOrigin { values: value("tenant", "b"), ..origin.clone() });
        assert!(JobOrigin::default().meta(&BTreeMap::new()).unwrap().is_none());
        let large = origin.meta(&value("x", &"y".repeat(MAX_META_BYTES - 1)));
        assert_eq!(large.map(drop).unwrap_err().code(), "payload_too_large");
        assert!(JobOrigin::default().meta(&value("x", &"y".repeat(MAX_META_BYTES - 1))).is_ok());
    }
}
