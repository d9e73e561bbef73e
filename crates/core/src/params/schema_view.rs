//! A value as a schema sees it: JSON, or text that the type asked for would parse.

use serde_json::Value;

use super::deserializer::parse_bool;
use super::value::Tree;

/// Most fields of a map, and items of a list, that are looked at.
const MAX_ENTRIES: usize = 1000;

/// A value, wherever it came from.
#[derive(Clone, Copy)]
pub(super) enum Seen<'a> {
    Json(&'a Value),
    Tree(&'a Tree),
}

impl<'a> Seen<'a> {
    pub(super) fn of(tree: &'a Tree) -> Self {
        match tree {
            Tree::Json(value) => Self::Json(value),
            other => Self::Tree(other),
        }
    }

    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Tree(Tree::Text(text)) => Some(text.trim()),
            _ => None,
        }
    }

    pub(super) fn is_null(self) -> bool {
        matches!(self, Self::Json(Value::Null)) || self.text() == Some("")
    }

    pub(super) fn string(self) -> Option<&'a str> {
        match self {
            Self::Json(Value::String(text)) | Self::Tree(Tree::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// `inf` and `NaN` are words; `1e400` is a number beyond every type.
    pub(super) fn number(self) -> Option<f64> {
        match self {
            Self::Json(value) => value.as_f64(),
            Self::Tree(_) => {
                let text = self.text()?;
                text.parse().ok().filter(|_| !text.contains(['n', 'N']))
            }
        }
    }

    /// A whole number. One beyond every type is the nearest that there is: it is out of their range, not of another type.
    pub(super) fn integer(self) -> Option<i128> {
        match self {
            Self::Json(value) => {
                let exact = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
                // serde_json reads what fits neither as a float.
                exact.or_else(|| {
                    value.as_f64().filter(|number| number.abs() >= 2_f64.powi(63)).map(|number| number as i128)
                })
            }
            Self::Tree(_) => {
                let text = self.text()?;
                let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
                let is_whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                let beyond = || if text.starts_with('-') { i128::MIN } else { i128::MAX };
                is_whole.then(|| text.parse().unwrap_or_else(|_| beyond()))
            }
        }
    }

    /// The names of an object's fields, as many as may be told of.
    pub(super) fn names(self) -> Vec<&'a str> {
        match self {
            Self::Json(Value::Object(fields)) => fields.keys().take(MAX_ENTRIES).map(String::as_str).collect(),
            Self::Tree(Tree::Map(entries)) => entries.iter().take(MAX_ENTRIES).map(|(name, _)| name.as_str()).collect(),
            Self::Json(_) | Self::Tree(_) => Vec::new(),
        }
    }

    pub(super) fn is_bool(self) -> bool {
        match self {
            Self::Json(value) => value.is_boolean(),
            Self::Tree(_) => self.text().is_some_and(|text| parse_bool(text).is_some()),
        }
    }

    /// How many items a list has.
    pub(super) fn len(self) -> Option<usize> {
        match self {
            Self::Json(value) => value.as_array().map(Vec::len),
            Self::Tree(_) => self.items().map(|items| items.len()),
        }
    }

    /// The items of a list, as many as may be told of.
    pub(super) fn items(self) -> Option<Vec<Seen<'a>>> {
        match self {
            Self::Json(value) => value.as_array().map(|list| list.iter().take(MAX_ENTRIES).map(Self::Json).collect()),
            Self::Tree(Tree::List(list)) => Some(list.iter().map(Self::of).collect()),
            Self::Tree(Tree::Map(entries)) => {
                Tree::numbered(entries).map(|list| list.into_iter().map(Self::of).collect())
            }
            Self::Tree(Tree::Text(_) | Tree::File(_)) => Some(vec![self]),
            Self::Tree(Tree::Json(value)) => Self::Json(value).items(),
        }
    }

    pub(super) fn is_object(self) -> bool {
        matches!(self, Self::Json(Value::Object(_)) | Self::Tree(Tree::Map(_)))
    }

    pub(super) fn field(self, name: &str) -> Option<Seen<'a>> {
        match self {
            Self::Json(value) => value.get(name).map(Self::Json),
            Self::Tree(Tree::Map(entries)) => {
                entries.iter().find(|(key, _)| key == name).map(|(_, tree)| Self::of(tree))
            }
            Self::Tree(_) => None,
        }
    }
}
