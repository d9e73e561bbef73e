//! Unique jobs: the key of a job, which other jobs have it, until when, and for how long at most.

use std::fmt::{self, Write};
use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::due::MAX_DELAY;
use super::handle::{EnqueueOptions, KnownTask, invalid, is_id};
use crate::backend::UniqueClaim;
use crate::error::ActionError;
use crate::params::{Input, Params};

/// How long a key is kept if its job does not end, unless something else is said.
pub(super) const UNIQUE_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How the jobs of a task are unique: while one has its key, no other with that key is stored.
#[derive(Clone, Copy, Debug)]
pub struct UniquePolicy {
    /// The key of a job whose enqueue names none.
    pub key: UniqueKey,
    /// Until when a job has it.
    pub until: UniqueUntil,
    /// Among which jobs it is unique.
    pub scope: UniqueScope,
    /// How long a job that does not end has it, from when it is due. Not shorter than the deadline of the task.
    pub lifetime: Duration,
}

impl UniquePolicy {
    /// No key of its own; the key of an enqueue is unique among the jobs of the task until the end, for a day at most.
    pub const DEFAULT: Self =
        Self { key: UniqueKey::None, until: UniqueUntil::End, scope: UniqueScope::Task, lifetime: UNIQUE_FOR };
}

/// The unique key of a task's jobs.
#[derive(Clone, Copy)]
pub enum UniqueKey {
    /// None, unless the enqueue names one.
    None,
    /// The whole input. A field that is `null` counts as left out.
    Input,
    /// These fields of the input.
    Fields(&'static [&'static str]),
    /// The text that a function makes of the input.
    Computed(fn(&Params) -> Result<String, ActionError>),
}

/// The text that a function makes of an input, for [`UniqueKey::Computed`].
///
/// # Errors
///
/// `invalid_input` for params that are no `T`.
pub fn computed_key<T: Input>(params: &Params, of: impl FnOnce(&T) -> String) -> Result<String, ActionError> {
    params.decode().map(|input| of(&input))
}

/// Until when a job has its unique key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UniqueUntil {
    /// Until it is done, failed or deleted.
    #[default]
    End,
    /// Until its first attempt begins: the next job sees all that changed since.
    Start,
}

/// Among which jobs a key is unique.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UniqueScope {
    /// Those of the same task.
    #[default]
    Task,
    /// Those of the same queue, whatever their tasks.
    Queue,
}

/// The part of an enqueue's options about uniqueness.
#[derive(Clone, Debug, Default)]
pub(super) struct UniqueOptions {
    /// `Some(None)`: without a key, whatever the task says.
    key: Option<Option<String>>,
    until: Option<UniqueUntil>,
    scope: Option<UniqueScope>,
    lifetime: Option<Duration>,
}

impl UniqueOptions {
    pub(super) fn has_key(&self) -> bool {
        matches!(self.key, Some(Some(_)))
    }
}

impl EnqueueOptions {
    /// Unless a job with the same key waits, runs, or is delayed: instead of the key that the task itself has.
    pub fn unique(mut self, key: impl Into<String>) -> Self {
        self.unique.key = Some(Some(key.into()));
        self
    }

    /// Without a unique key, whatever the task says.
    pub fn not_unique(mut self) -> Self {
        self.unique.key = Some(None);
        self
    }

    /// The job has its unique key until then.
    pub fn unique_until(mut self, until: UniqueUntil) -> Self {
        self.unique.until = Some(until);
        self
    }

    /// The key is unique among these jobs.
    pub fn unique_scope(mut self, scope: UniqueScope) -> Self {
        self.unique.scope = Some(scope);
        self
    }

    /// The job has its unique key for so long at most, from when it is due; not shorter than the deadline of the task.
    pub fn unique_for(mut self, lifetime: Duration) -> Self {
        self.unique.lifetime = Some(lifetime);
        self
    }
}

/// The claim of a job, as it is stored and as its text says it.
#[derive(Debug)]
pub(super) struct JobClaim {
    pub(super) claim: UniqueClaim,
    pub(super) until: UniqueUntil,
    pub(super) lifetime: Duration,
}

impl JobClaim {
    /// The claim of a job that is to be enqueued, if it has one; due after so many milliseconds.
    pub(super) fn of(
        (task, known): (&str, &KnownTask),
        queue: &str,
        options: &UniqueOptions,
        (input, params): (&RawValue, &Params),
        delay_ms: u64,
    ) -> Result<Option<Self>, ActionError> {
        let policy = known.unique;
        let key = match &options.key {
            Some(Some(key)) if is_id(key) => Some(key.clone()),
            Some(Some(_)) => return Err(invalid("unique", "must be 1 to 128 printable ASCII characters")),
            Some(None) => None,
            None => policy.key.of(input, params)?,
        };
        let Some(key) = key else { return Ok(None) };
        let until = options.until.unwrap_or(policy.until);
        let lifetime = options.lifetime.unwrap_or(policy.lifetime);
        if lifetime.is_zero() || lifetime > MAX_DELAY {
            return Err(invalid("unique_for", "must be more than nothing, and ten years at most"));
        }
        if is_too_short(lifetime, until, known.limit) {
            return Err(invalid("unique_for", "must not be shorter than the deadline of the task"));
        }
        let key = match options.scope.unwrap_or(policy.scope) {
            UniqueScope::Task => format!("{task}:{key}"),
            UniqueScope::Queue => format!("@{queue}:{key}"), // no task has such a name
        };
        let ttl_ms = (lifetime.as_millis() as u64).max(1) + delay_ms;
        Ok(Some(Self { claim: UniqueClaim { key: key.into(), ttl_ms }, until, lifetime }))
    }
}

/// Whether a key would be free again while its job still runs in time.
pub(crate) fn is_too_short(lifetime: Duration, until: UniqueUntil, limit: Option<Duration>) -> bool {
    until == UniqueUntil::End && limit.is_some_and(|limit| lifetime < limit)
}

impl UniqueKey {
    /// The names of the fields that it is made of.
    pub(crate) fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Fields(fields) => fields,
            Self::None | Self::Input | Self::Computed(_) => &[],
        }
    }

    /// The key of a job. One that is no short text is replaced by its digest.
    fn of(self, input: &RawValue, params: &Params) -> Result<Option<String>, ActionError> {
        let fields = || serde_json::from_str::<Value>(input.get()).map_err(ActionError::internal);
        Ok(Some(match self {
            Self::None => return Ok(None),
            Self::Input => {
                let mut all = fields()?;
                if let Value::Object(fields) = &mut all {
                    fields.retain(|_, value| !value.is_null());
                }
                digest(&all)
            }
            Self::Fields(names) => {
                let all = fields()?;
                digest(&names.iter().map(|name| all.get(name).cloned().unwrap_or_default()).collect())
            }
            Self::Computed(of) => {
                let key = of(params)?;
                if is_id(&key) { key } else { digest(&Value::String(key)) }
            }
        }))
    }
}

/// Identifies a value, the same on all nodes.
fn digest(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    let mut key = "#".to_owned();
    for byte in &Sha256::digest(text.as_bytes())[..16] {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

/// Writes a value in one form: fields in order, and numbers without a needless fraction.
fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| name.as_str());
            text.push('{');
            for (name, value) in fields {
                let _ = write!(text, "{}:", Value::from(name.as_str()));
                write_canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Number(number) => match number.as_f64() {
            Some(whole) if number.is_f64() && whole.fract() == 0.0 && whole.abs() < 9e15 => {
                let _ = write!(text, "{}", whole as i64);
            }
            _ => {
                let _ = write!(text, "{number}");
            }
        },
        Value::Null | Value::Bool(_) | Value::String(_) => {
            let _ = write!(text, "{value}");
        }
    }
}

impl fmt::Debug for UniqueKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Input => f.write_str("Input"),
            Self::Fields(fields) => f.debug_tuple("Fields").field(fields).finish(),
            Self::Computed(_) => f.write_str("Computed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(of: UniqueKey, input: &Value) -> String {
        let input = serde_json::value::to_raw_value(input).unwrap();
        let params = Params::from_raw_json(input.clone()).unwrap();
        of.of(&input, &params).unwrap().unwrap_or_default()
    }

    #[test]
    fn equal_inputs_have_one_key_however_they_are_written() {
        let same = [
            json!({ "to": "Ada", "size": 1, "of": { "a": [1, 2], "b": null } }),
            json!({ "size": 1.0, "of": { "b": null, "a": [1.0, 2] }, "to": "Ada", "left": null }),
        ];
        let different = [
            json!({ "to": "Ada", "size": 1, "of": { "a": [2, 1], "b": null } }),
            json!({ "to": "Ada", "size": 1.5, "of": { "a": [1, 2], "b": null } }),
            json!({ "to": "Ada", "size": "1", "of": { "a": [1, 2], "b": null } }),
            json!({ "to": "Ada" }),
            json!({}),
        ];
        let first = key(UniqueKey::Input, &same[0]);
        assert_eq!(first, key(UniqueKey::Input, &same[1]));
        assert!(is_id(&first), "{first}");
        for other in &different {
            assert_ne!(first, key(UniqueKey::Input, other), "{other}");
        }
    }

    #[test]
    fn fields_are_distinguished_and_long_texts_are_shortened() {
        let fields = UniqueKey::Fields(&["a", "b"]);
        assert_eq!(key(fields, &json!({ "a": 1, "c": 2 })), key(fields, &json!({ "c": 3, "b": null, "a": 1 })));
        assert_ne!(key(fields, &json!({ "a": 1 })), key(fields, &json!({ "b": 1 })));
        assert_eq!(key(UniqueKey::Computed(|_| Ok("short".into())), &json!({})), "short");
        assert!(is_id(&key(UniqueKey::Computed(|_| Ok("with a blank".into())), &json!({}))));
        assert_eq!(key(UniqueKey::None, &json!({ "a": 1 })), "");
    }

    #[test]
    fn a_key_is_kept_at_least_for_the_deadline_unless_it_is_free_at_the_start() {
        let second = Duration::from_secs(1);
        for (until, limit, is_short) in [
            (UniqueUntil::End, Some(second), false),
            (UniqueUntil::End, Some(second * 2), true),
            (UniqueUntil::End, None, false),
            (UniqueUntil::Start, Some(second * 2), false),
        ] {
            assert_eq!(is_too_short(second, until, limit), is_short, "{until:?} {limit:?}");
        }
    }
}
