//! A param as a schema describes it: JSON, or text that the requested type would parse.

use serde_json::Value;

use super::deserializer::parse_bool;
use super::value::ParamValue;
use super::whole;

/// One view over values of every source.
#[derive(Clone, Copy)]
pub(super) enum SchemaView<'a> {
    Json(&'a Value),
    Param(&'a ParamValue),
}

impl<'a> SchemaView<'a> {
    pub(super) fn of(value: &'a ParamValue) -> Self {
        match value {
            ParamValue::Json(json) => Self::Json(json),
            other => Self::Param(other),
        }
    }

    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Param(ParamValue::Text(text)) => Some(text.trim()),
            _ => None,
        }
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self, Self::Json(Value::Null)) || self.text() == Some("")
    }

    pub(super) fn string(self) -> Option<&'a str> {
        match self {
            Self::Json(Value::String(text)) | Self::Param(ParamValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// A number. `inf` and `NaN` are words, not numbers; `1e400` is a number out of the range of every type.
    pub(super) fn number(self) -> Option<f64> {
        match self {
            Self::Json(value) => value.as_f64(),
            Self::Param(_) => {
                let text = self.text()?;
                text.parse().ok().filter(|_| !text.contains(['n', 'N']))
            }
        }
    }

    /// A whole number. One out of the range of every type becomes the nearest `i128`, so that it is reported as out of
    /// range, not as the wrong type.
    pub(super) fn integer(self) -> Option<i128> {
        match self {
            Self::Json(value) => {
                let exact = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
                // serde_json reads a number that fits neither type as a float.
                exact.or_else(|| {
                    let number = value.as_f64()?;
                    let is_beyond = number.abs() >= 2_f64.powi(63);
                    if is_beyond { Some(number as i128) } else { whole::integer_of(number).map(i128::from) }
                })
            }
            Self::Param(_) => {
                let text = self.text()?;
                let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
                let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                let beyond = || if text.starts_with('-') { i128::MIN } else { i128::MAX };
                match is_whole {
                    true => Some(text.parse().unwrap_or_else(|_| beyond())),
                    false => whole::parse_integer(text).map(i128::from),
                }
            }
        }
    }

    /// The names of an object's fields, at most `max`.
    pub(super) fn names(self, max: usize) -> Vec<&'a str> {
        match self {
            Self::Json(Value::Object(fields)) => fields.keys().take(max).map(String::as_str).collect(),
            Self::Param(ParamValue::Map(entries)) => entries.iter().take(max).map(|(name, _)| name.as_str()).collect(),
            Self::Json(_) | Self::Param(_) => Vec::new(),
        }
    }

    pub(super) fn is_bool(self) -> bool {
        match self {
            Self::Json(value) => value.is_boolean(),
            Self::Param(_) => self.text().is_some_and(|text| parse_bool(text).is_some()),
        }
    }

    /// The number of a list's items.
    pub(super) fn len(self) -> Option<usize> {
        match self {
            Self::Json(value) => value.as_array().map(Vec::len),
            Self::Param(_) => self.items(usize::MAX).map(|items| items.len()),
        }
    }

    /// The items of a list; of a JSON list at most `max`.
    pub(super) fn items(self, max: usize) -> Option<Vec<SchemaView<'a>>> {
        match self {
            Self::Json(value) => value.as_array().map(|list| list.iter().take(max).map(Self::Json).collect()),
            Self::Param(ParamValue::List(list)) => Some(list.iter().map(Self::of).collect()),
            Self::Param(ParamValue::Map(entries)) => {
                ParamValue::numbered(entries).map(|list| list.into_iter().map(Self::of).collect())
            }
            Self::Param(ParamValue::Text(_) | ParamValue::File(_)) => Some(vec![self]),
            Self::Param(ParamValue::Json(value)) => Self::Json(value).items(max),
        }
    }

    pub(super) fn is_object(self) -> bool {
        matches!(self, Self::Json(Value::Object(_)) | Self::Param(ParamValue::Map(_)))
    }

    pub(super) fn field(self, name: &str) -> Option<SchemaView<'a>> {
        match self {
            Self::Json(value) => value.get(name).map(Self::Json),
            Self::Param(ParamValue::Map(entries)) => {
                entries.iter().find(|(key, _)| key == name).map(|(_, value)| Self::of(value))
            }
            Self::Param(_) => None,
        }
    }
}
