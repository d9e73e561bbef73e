//! The words for what is wrong with an input. Never the rejected value.

use std::borrow::Cow;

use serde_json::Value;
use validator::{ValidationError, ValidationErrors, ValidationErrorsKind};

use crate::error::Detail;

/// Most faults that are told at once.
pub(super) const MOST: usize = 64;

/// What validators found, flattened.
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
                    if details.len() < MOST {
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
            let what = if matches!(error.params.get("value"), Some(Value::Array(_))) { "items" } else { "characters" };
            match bound("equal") {
                Some(exact) => length_message(Some(&exact), Some(&exact), what).into(),
                None => length_message(min.as_deref(), max.as_deref(), what).into(),
            }
        }
        "range" => range_message(
            min.or_else(|| bound("exclusive_min")).as_deref(),
            max.or_else(|| bound("exclusive_max")).as_deref(),
        )
        .into(),
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

/// `3.0` reads `3`.
fn number(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
        _ => value.to_string(),
    }
}

/// How long something must be.
pub(super) fn length_message(min: Option<&str>, max: Option<&str>, what: &str) -> String {
    match (min, max) {
        (Some(min), Some(max)) if min == max => format!("must have exactly {min} {what}"),
        (Some(min), Some(max)) => format!("must have {min} to {max} {what}"),
        (Some(min), None) => format!("must have at least {min} {what}"),
        (None, Some(max)) => format!("must have at most {max} {what}"),
        (None, None) => "has the wrong length".into(),
    }
}

/// How large something must be.
pub(super) fn range_message(min: Option<&str>, max: Option<&str>) -> String {
    match (min, max) {
        (Some(min), Some(max)) => format!("must be from {min} to {max}"),
        (Some(min), None) => format!("must be at least {min}"),
        (None, Some(max)) => format!("must be at most {max}"),
        (None, None) => "is out of range".into(),
    }
}

/// A fault that the schema does not explain; serde knows where it is, and its words would quote the value.
pub(super) fn unexplained(path: Option<String>) -> Detail {
    let path = path.filter(|path| path != ".").unwrap_or_default();
    Detail::new(path, "invalid", "is not valid")
}

/// Numbers of a schema as text.
pub(super) fn bound(value: Option<&Value>) -> Option<String> {
    value.map(number)
}
