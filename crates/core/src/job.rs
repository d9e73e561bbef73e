//! The text of a job as it is stored, in resque's form, and the entry of one that failed.
//!
//! A store keeps a text byte for byte; it is written once, at the enqueue, and read by the node that runs the job. Jobs of
//! other programs have class, queue and arguments only; jobs of ours have fields of their own behind these.

mod turn;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backend::{FetchedJob, JobCounters, ListedAttempt, MemberName};
use crate::id::Generation;

pub(crate) use turn::is_turn_byte;
pub use turn::{MAX_TURN_BYTES, turn_of};

/// The most bytes of the text of an error that is kept with a failed job.
pub const MAX_ERROR_BYTES: usize = 8 * 1024;

/// A job's text, read or to be written.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct JobText<'a> {
    /// The name of its task.
    #[serde(borrow)]
    pub class: Cow<'a, str>,
    /// The queue that it was enqueued in.
    #[serde(borrow, default)]
    pub queue: Cow<'a, str>,
    /// A list with its input.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub args: Option<&'a RawValue>,
    /// Its id; a job of another program has none.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// When it was enqueued, Unix time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enqueued_at: Option<u64>,
    /// When it is due, if that is later; Unix time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_at: Option<u64>,
    /// The tick of a periodic task that it is of, Unix time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tick: Option<u64>,
    /// When it is too late to begin, Unix time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// The claim that it has.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<Cow<'a, str>>,
    /// `start` if it has the claim until an attempt begins; otherwise until its end.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub unique_until: Option<Cow<'a, str>>,
    /// How long it has the claim at most, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_for: Option<u64>,
    /// Facts about the enqueuer.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<JobMeta<'a>>,
    /// The batch whose completion it is.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub completes: Option<Cow<'a, str>>,
    /// The key by which it takes turns with other jobs of its queue. Before the batch: see [`turn_of`].
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub fair: Option<Cow<'a, str>>,
    /// The batch that it is a member of, and its number there. The last field: the store appends the number.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Cow<'a, str>>,
}

/// Facts about the enqueuer of a job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct JobMeta<'a> {
    /// The id of the request, handed on to the jobs that a job enqueues.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Cow<'a, str>>,
    /// The trace of the request, in the form of W3C, handed on as well.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<Cow<'a, str>>,
    /// The application's own, handed on as well.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
}

/// The input of a job.
#[derive(Debug)]
pub enum JobInput<'a> {
    /// None: no arguments, or `null`.
    None,
    /// One object.
    Object(&'a RawValue),
    /// Arguments that no task of ours takes.
    Other,
}

impl ListedAttempt {
    /// Reads the part of an attempt that a list shows.
    pub fn read(generation: Generation, job: FetchedJob) -> Self {
        let own = |text: Cow<'_, str>| Arc::from(&*text);
        let (class, id) = JobText::read(&job.text).map_or((None, None), |job| (Some(own(job.class)), job.id.map(own)));
        Self { generation, attempt: job.attempt, id, class }
    }
}

/// The part of a foreign job that is read when its other fields are not of our form.
#[derive(Deserialize)]
struct ForeignText<'a> {
    #[serde(borrow)]
    class: Cow<'a, str>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

impl<'a> JobText<'a> {
    /// Whether its claim is released when an attempt begins.
    pub fn is_unique_until_start(&self) -> bool {
        self.unique_until.as_deref() == Some("start")
    }

    /// Reads a job; `None` if it is no job at all.
    pub fn read(text: &'a [u8]) -> Option<Self> {
        if let Ok(job) = serde_json::from_slice(text) {
            return Some(job);
        }
        let ForeignText { class, args } = serde_json::from_slice(text).ok()?;
        let queue = Cow::Borrowed("");
        Some(Self { class, queue, args, ..Self::default() })
    }

    /// The batch that it is a member of, or the completion of.
    pub fn batch_id(&self) -> Option<&str> {
        let of_member = self.batch.as_deref().and_then(MemberName::read).map(|member| member.batch);
        of_member.or(self.completes.as_deref())
    }

    /// Since when it could begin, Unix time in milliseconds; a job of another program does not say.
    pub fn could_begin_at(&self) -> Option<u64> {
        self.due_at.or(self.enqueued_at)
    }

    /// The text to store.
    ///
    /// # Panics
    ///
    /// Never: all fields are text, numbers, and JSON.
    pub fn write(&self) -> Bytes {
        serde_json::to_vec(self).expect("text, numbers and raw JSON can be written").into()
    }

    /// The input among the arguments.
    pub fn input(&self) -> JobInput<'a> {
        let Some(args) = self.args else { return JobInput::None };
        match serde_json::from_str::<Option<Vec<&'a RawValue>>>(args.get()) {
            Ok(None) => JobInput::None,
            Ok(Some(args)) => match args[..] {
                [] => JobInput::None,
                [only] if only.get() == "null" => JobInput::None,
                [only] if only.get().starts_with('{') => JobInput::Object(only),
                _ => JobInput::Other,
            },
            Err(_) => JobInput::Other,
        }
    }
}

/// How an attempt ended, as metrics, logs and observers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptOutcome {
    /// The job succeeded.
    Done,
    /// It failed, and runs again.
    Retried,
    /// It failed for good.
    Failed,
    /// It runs later instead.
    Snoozed,
    /// The task discarded its job.
    Discarded,
    /// Its job was deleted.
    Deleted,
    /// It came too late to begin.
    Expired,
    /// It was given back, and does not count.
    GivenBack,
    /// It waits for a node that knows its task.
    Parked,
    /// The node was taken for dead meanwhile, and the job runs, or ran, elsewhere.
    Superseded,
}

impl AttemptOutcome {
    /// Its name: `done`, `retried`, ….
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Retried => "retried",
            Self::Failed => "failed",
            Self::Snoozed => "snoozed",
            Self::Discarded => "discarded",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::GivenBack => "given_back",
            Self::Parked => "parked",
            Self::Superseded => "superseded",
        }
    }
}

/// The name of a node's worker, as resque tools show it: `<host>:<process>`.
pub fn worker_name(node_id: &str, generation: Generation) -> String {
    format!("{}:{generation}", node_id.replace([':', ','], "-"))
}

/// Describes a job that failed, to be written in resque's form.
#[derive(Debug)]
pub struct FailedRecord<'a> {
    /// The worker that ran it last.
    pub worker: &'a str,
    /// The queue it came from.
    pub queue: &'a str,
    /// Its text.
    pub text: &'a [u8],
    /// The kind of the failure.
    pub exception: &'a str,
    /// The error, cut at [`MAX_ERROR_BYTES`].
    pub error: &'a str,
    /// When, Unix time in milliseconds.
    pub failed_at_ms: u64,
    /// How often it was begun.
    pub counters: JobCounters,
}

#[derive(Serialize, Deserialize)]
struct FailedText<'a> {
    #[serde(borrow, default)]
    worker: Cow<'a, str>,
    #[serde(borrow, default)]
    queue: Cow<'a, str>,
    #[serde(borrow)]
    payload: Cow<'a, RawValue>,
    #[serde(borrow, default)]
    exception: Cow<'a, str>,
    #[serde(borrow, default)]
    error: Cow<'a, str>,
    #[serde(default)]
    backtrace: Vec<String>,
    #[serde(borrow, default)]
    failed_at: Cow<'a, str>,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    deaths: u32,
    #[serde(default)]
    stalls: u32,
}

#[derive(Serialize)]
struct UnreadablePayload<'a> {
    class: &'static str,
    queue: &'a str,
    args: [Cow<'a, str>; 1],
}

/// A job that a worker works on, to be written in resque's form.
#[derive(Debug)]
pub struct WorkingOn<'a> {
    /// The worker.
    pub worker: &'a str,
    /// The queue that the job came from.
    pub queue: &'a str,
    /// Its text.
    pub text: &'a [u8],
    /// Since when it runs, Unix time in milliseconds.
    pub run_at_ms: u64,
}

#[derive(Serialize)]
struct WorkingOnText<'a> {
    run_at: String,
    queue: &'a str,
    worker: &'a str,
    payload: Cow<'a, RawValue>,
}

impl WorkingOn<'_> {
    /// The value that resque's tools read.
    ///
    /// # Panics
    ///
    /// Never: all fields are text and JSON.
    pub fn write(&self) -> Bytes {
        let Self { worker, queue, text, run_at_ms } = *self;
        let written = WorkingOnText { run_at: resque_date(run_at_ms), queue, worker, payload: payload(text, queue) };
        serde_json::to_vec(&written).expect(WRITABLE).into()
    }
}

const WRITABLE: &str = "text, numbers and raw JSON can be written";

/// A job as others read it. A text that is no JSON object becomes the argument of a job of the class `unreadable`.
fn payload<'a>(text: &'a [u8], queue: &str) -> Cow<'a, RawValue> {
    let is_object = JobText::read(text).is_some();
    let payload = std::str::from_utf8(text).ok().filter(|_| is_object);
    payload.and_then(|text| serde_json::from_str::<&RawValue>(text).ok()).map_or_else(
        || {
            let unreadable = UnreadablePayload { class: "unreadable", queue, args: [String::from_utf8_lossy(text)] };
            Cow::Owned(serde_json::value::to_raw_value(&unreadable).expect(WRITABLE))
        },
        Cow::Borrowed,
    )
}

impl FailedRecord<'_> {
    /// The entry. A text that is no JSON object becomes the argument of a job of the class `unreadable`.
    ///
    /// # Panics
    ///
    /// Never: all fields are text, numbers, and JSON.
    pub fn write(&self) -> Bytes {
        let record = FailedText {
            worker: self.worker.into(),
            queue: self.queue.into(),
            payload: payload(self.text, self.queue),
            exception: self.exception.into(),
            error: cut(self.error, MAX_ERROR_BYTES).into(),
            backtrace: Vec::new(),
            failed_at: resque_date(self.failed_at_ms).into(),
            attempts: self.counters.attempts,
            deaths: self.counters.deaths,
            stalls: self.counters.stalls,
        };
        serde_json::to_vec(&record).expect(WRITABLE).into()
    }
}

/// The start of the counters in an entry.
const COUNTERS: &str = ",\"attempts\":";

impl FailedRecord<'_> {
    /// The entry without its counters, for a script that knows them: `,"attempts":1,"deaths":2,"stalls":3}` is to follow.
    pub fn write_without_counters(&self) -> Bytes {
        let record = self.write();
        let end = record.windows(COUNTERS.len()).rposition(|window| window == COUNTERS.as_bytes());
        record.slice(..end.unwrap_or(record.len()))
    }
}

/// A job among the failed ones.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedJob {
    /// The entry, as it is stored: it names the job for a retry or a removal.
    pub record: Bytes,
    /// The job's id; a job of another program has none.
    pub id: Option<String>,
    /// The name of its task.
    pub task: String,
    /// The queue.
    pub queue: String,
    /// The job.
    pub payload: Box<RawValue>,
    /// The worker that ran it last.
    pub worker: String,
    /// The kind of the failure.
    pub exception: String,
    /// The error.
    pub error: String,
    /// When it failed, as resque writes it.
    pub failed_at: String,
    /// How often it was begun.
    pub counters: JobCounters,
}

impl FailedJob {
    /// Reads an entry; one that is not of resque's form shows as a failure of the task `unreadable`.
    pub fn read(record: &Bytes) -> Self {
        let Ok(text) = serde_json::from_slice::<FailedText<'_>>(record) else {
            return Self::unreadable(record);
        };
        let job = JobText::read(text.payload.get().as_bytes());
        let id = job.as_ref().and_then(|job| job.id.as_deref().map(str::to_owned));
        let task = job.map_or_else(|| "unreadable".to_owned(), |job| job.class.into_owned());
        Self {
            record: record.clone(),
            id,
            task,
            queue: text.queue.into_owned(),
            worker: text.worker.into_owned(),
            exception: text.exception.into_owned(),
            error: text.error.into_owned(),
            failed_at: text.failed_at.into_owned(),
            counters: JobCounters { attempts: text.attempts, deaths: text.deaths, stalls: text.stalls },
            payload: text.payload.into_owned(),
        }
    }

    fn unreadable(record: &Bytes) -> Self {
        let text = String::from_utf8_lossy(record);
        Self {
            record: record.clone(),
            id: None,
            task: "unreadable".to_owned(),
            queue: String::new(),
            payload: serde_json::value::to_raw_value(&text).expect("text can be written"),
            worker: String::new(),
            exception: "unreadable".to_owned(),
            error: "the entry is not of resque's form".to_owned(),
            failed_at: String::new(),
            counters: JobCounters::default(),
        }
    }
}

/// The start of a text, of so many bytes at most.
fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A date as JavaScript prints it, in UTC: resque tools show it as it is.
fn resque_date(unix_ms: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]; // 1 January 1970 was a Thursday
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = unix_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The civil date, counted in eras of 400 years from 1 March of the year 0, so that leap days come last.
    let day_of_era = (days + 719_468) % 146_097;
    let era = (days + 719_468) / 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 2 } else { shifted_month - 10 };
    let year = year_of_era + era * 400 + u64::from(month < 2);
    format!(
        "{} {} {day:02} {year} {:02}:{:02}:{:02} GMT+0000 (Coordinated Universal Time)",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize],
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_resque_writes_them() {
        for (seconds, date) in [
            (0, "Thu Jan 01 1970 00:00:00"),
            (951_782_399, "Mon Feb 28 2000 23:59:59"),
            (951_782_400, "Tue Feb 29 2000 00:00:00"),
            (1_795_402_749, "Mon Nov 23 2026 02:59:09"),
            (1_830_297_599, "Fri Dec 31 2027 23:59:59"),
            (4_107_542_400, "Mon Mar 01 2100 00:00:00"),
        ] {
            assert_eq!(resque_date(seconds * 1000 + 7), format!("{date} GMT+0000 (Coordinated Universal Time)"));
        }
    }

    #[test]
    fn a_job_is_read_as_it_was_written_and_begins_in_resques_form() {
        let args =
            serde_json::value::to_raw_value(&[serde_json::json!({ "list": [], "big": 9_007_199_254_740_993_u64 })]);
        let args = args.unwrap();
        let job = JobText {
            class: "mail".into(),
            queue: "high".into(),
            args: Some(&args),
            id: Some("a-1".into()),
            enqueued_at: Some(5),
            due_at: None,
            tick: None,
            expires_at: Some(9),
            unique: Some("mail:x".into()),
            unique_until: Some("start".into()),
            unique_for: Some(7),
            meta: Some(JobMeta { request: Some("r-1".into()), ..JobMeta::default() }),
            completes: None,
            batch: None,
            fair: None,
        };
        let text = job.write();
        let start = br#"{"class":"mail","queue":"high","args":[{"big":9007199254740993,"list":[]}],"id":"a-1""#;
        assert!(text.starts_with(start), "{text:?}");
        let read = JobText::read(&text).unwrap();
        assert_eq!((read.write(), read.meta.unwrap().request.as_deref()), (text.clone(), Some("r-1")));
    }

    #[test]
    fn jobs_of_other_programs_are_read_whatever_else_they_have() {
        let input = |text: &'static str| match JobText::read(text.as_bytes()).map(|job| job.input()) {
            None => "no job".to_owned(),
            Some(JobInput::None) => "none".to_owned(),
            Some(JobInput::Object(object)) => object.get().to_owned(),
            Some(JobInput::Other) => "other".to_owned(),
        };
        for (text, expected) in [
            (r#"{"class":"a","queue":"q","args":[{"ms":5}]}"#, r#"{"ms":5}"#),
            (r#"{"class":"a","queue":"q","args":[{}]}"#, "{}"),
            (r#"{"class":"a","queue":"q","args":[]}"#, "none"),
            (r#"{"class":"a","args":[null]}"#, "none"),
            (r#"{"class":"a","args":null}"#, "none"),
            (r#"{"class":"a"}"#, "none"),
            (r#"{"class":"a","id":7,"meta":"x","args":[{"b":1}]}"#, r#"{"b":1}"#),
            (r#"{"class":"a","args":[1]}"#, "other"),
            (r#"{"class":"a","args":[{},{}]}"#, "other"),
            (r#"{"class":"a","args":"x"}"#, "other"),
            (r#"{"class":5}"#, "no job"),
            ("[]", "no job"),
            ("\u{0}", "no job"),
        ] {
            assert_eq!(input(text), expected, "{text}");
        }
    }

    #[test]
    fn a_failed_job_keeps_its_text_and_its_error_up_to_the_bound() {
        let text = br#"{"class":"mail","queue":"q","args":[{"n":1.0}],"id":"a"}"#;
        let (error, counters) = ("\u{e9}".repeat(MAX_ERROR_BYTES), JobCounters { attempts: 3, deaths: 1, stalls: 0 });
        let record = FailedRecord {
            worker: "w",
            queue: "q",
            text,
            exception: "timeout",
            error: &error,
            failed_at_ms: 0,
            counters,
        };
        let failed = FailedJob::read(&record.write());
        assert_eq!((failed.payload.get().as_bytes(), failed.task.as_str()), (&text[..], "mail"));
        assert_eq!((failed.id.as_deref(), failed.counters), (Some("a"), counters));
        assert_eq!((failed.error.len(), failed.exception.as_str()), (MAX_ERROR_BYTES, "timeout"));
    }

    #[test]
    fn a_text_that_cannot_be_read_is_the_argument_of_its_failure() {
        for (text, argument) in [(&b"{nonsense"[..], "{nonsense"), (b"\xff", "\u{fffd}"), (b"[1]", "[1]")] {
            let (exception, counters) = ("unreadable", JobCounters::default());
            let record =
                FailedRecord { worker: "w", queue: "q", text, exception, error: "", failed_at_ms: 0, counters };
            let failed = FailedJob::read(&record.write());
            let payload: serde_json::Value = serde_json::from_str(failed.payload.get()).unwrap();
            assert_eq!(payload, serde_json::json!({ "class": "unreadable", "queue": "q", "args": [argument] }));
        }
        assert_eq!(FailedJob::read(&Bytes::from_static(b"rubbish")).task, "unreadable");
    }
}
