//! Messages for the faults of an input. They never contain the rejected value.

use std::borrow::Cow;

use serde_json::Value;
use serde_path_to_error::Segment;
use validator::{ValidationError, ValidationErrors, ValidationErrorsKind};

use crate::error::Detail;

/// Most faults in one error.
pub(super) const MAX_FAULTS: usize = 64;

/// Flattens the errors of validators.
pub(super) fn details_of(broken: &ValidationErrors) -> Vec<Detail> {
    let mut details = Vec::new();
    flatten(broken, "", &mut details);
    details.sort_by(|a, b| a.path.cmp(&b.path));
    details
}

fn flatten(broken: &ValidationErrors, prefix: &str, details: &mut Vec<Detail>) {
    for (field, kind) in broken.errors() {
        let path = match (prefix.is_empty(), field.as_ref()) {
            (false, "__all__") => prefix.to_owned(),
            (true, "__all__") => String::new(),
            (true, field) => field.to_owned(),
            (false, field) => format!("{prefix}.{field}"),
        };
        match kind {
            ValidationErrorsKind::Field(errors) => {
                for error in errors {
                    if details.len() < MAX_FAULTS {
                        details.push(Detail::new(path.clone(), error.code.clone(), message_of(error)));
                    }
                }
            }
            ValidationErrorsKind::Struct(inner) => flatten(inner, &path, details),
            ValidationErrorsKind::List(items) => {
                for (index, inner) in items {
                    flatten(inner, &format!("{path}[{index}]"), details);
                }
            }
        }
    }
}

fn message_of(error: &ValidationError) -> Cow<'static, str> {
    if let Some(message) = &error.message {
        return message.clone();
    }
    let bound = |name: &str| error.params.get(name).map(number);
    let (min, max) = (bound("min"), bound("max"));
    match error.code.as_ref() {
        "length" => {
            let unit = if matches!(error.params.get("value"), Some(Value::Array(_))) { "items" } else { "characters" };
            match bound("equal") {
                Some(exact) => length_message(Some(&exact), Some(&exact), unit).into(),
                None => length_message(min.as_deref(), max.as_deref(), unit).into(),
            }
        }
        "range" => {
            let (above, below) = (bound("exclusive_min"), bound("exclusive_max"));
            RangeRule { min, max, above, below }.message().into()
        }
        "email" => "must be an email address".into(),
        "url" => "must be a URL".into(),
        "required" => "is required".into(),
        "must_match" => "must match the other field".into(),
        "contains" => "lacks a part that it must have".into(),
        "does_not_contain" => "has a part that it must not have".into(),
        "regex" => "has the wrong form".into(),
        "credit_card" => "must be a card number".into(),
        "ip" | "ip_v4" | "ip_v6" => "must be an IP address".into(),
        _ => "is not valid".into(),
    }
}

/// Writes a number; `3.0` as `3`.
fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
        _ => value.to_string(),
    }
}

/// The message for a wrong length.
pub(super) fn length_message(min: Option<&str>, max: Option<&str>, unit: &str) -> String {
    match (min, max) {
        (Some(min), Some(max)) if min == max => format!("must have exactly {min} {unit}"),
        (Some(min), Some(max)) => format!("must have {min} to {max} {unit}"),
        (Some(min), None) => format!("must have at least {min} {unit}"),
        (None, Some(max)) => format!("must have at most {max} {unit}"),
        (None, None) => "has the wrong length".into(),
    }
}

/// The bounds of a number.
#[derive(Default)]
pub(super) struct RangeRule {
    pub(super) min: Option<String>,
    pub(super) max: Option<String>,
    pub(super) above: Option<String>,
    pub(super) below: Option<String>,
}

impl RangeRule {
    pub(super) fn message(&self) -> String {
        if let Self { min: Some(min), max: Some(max), above: None, below: None } = self {
            return format!("must be from {min} to {max}");
        }
        let words =
            [("at least", &self.min), ("more than", &self.above), ("at most", &self.max), ("less than", &self.below)];
        let parts = words.iter().filter_map(|(words, bound)| Some(format!("{words} {}", bound.as_ref()?)));
        match parts.collect::<Vec<_>>() {
            parts if parts.is_empty() => "is out of range".into(),
            parts => format!("must be {}", parts.join(" and ")),
        }
    }
}

/// A fault that the schema does not explain. Only serde's path is used: its message would quote the value.
pub(super) fn unexplained(path: &serde_path_to_error::Path) -> Detail {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(cut(name));
            }
            Segment::Unknown => {}
        }
    }
    Detail::new(text, "invalid", "is not valid")
}

/// Cuts a name that a client made up to the length that is sent back to it: 64 characters.
pub(super) fn cut(name: &str) -> &str {
    name.char_indices().nth(64).map_or(name, |(end, _)| &name[..end])
}

/// A number of a schema as text.
pub(super) fn bound(value: Option<&Value>) -> Option<String> {
    value.map(number)
}
