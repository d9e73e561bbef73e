//! The value of one param: JSON, text, a file, or a tree of these, built from `a[b]` and repeated keys.

use serde_json::{Map, Value};

use super::upload::Upload;

/// Most levels of `a[b][c]`.
const MAX_DEPTH: usize = 8;

/// The value of one param.
#[derive(Clone)]
pub(super) enum ParamValue {
    Json(Value),
    Text(String),
    File(Upload),
    List(Vec<ParamValue>),
    Map(Vec<(String, ParamValue)>),
}

impl ParamValue {
    /// Nests a value under the rest of its key: `[b][]` makes a map of a list.
    pub(super) fn nested(rest: &[&str], value: ParamValue) -> Self {
        match rest.split_first() {
            None => value,
            Some((&"", rest)) => Self::List(vec![Self::nested(rest, value)]),
            Some((key, rest)) => Self::Map(vec![((*key).to_owned(), Self::nested(rest, value))]),
        }
    }

    /// Adds another value of the same name. A second value makes a list, whose items nest no deeper than their keys.
    pub(super) fn add(&mut self, rest: &[&str], value: ParamValue) {
        if let (Self::Map(entries), Some((key, rest))) = (&mut *self, rest.split_first())
            && !key.is_empty()
        {
            match entries.iter_mut().find(|(name, _)| name == key) {
                Some((_, nested)) => nested.add(rest, value),
                None => entries.push(((*key).to_owned(), Self::nested(rest, value))),
            }
            return;
        }
        let item = Self::nested(rest.strip_prefix(&[""]).unwrap_or(rest), value);
        match self {
            Self::List(list) => list.push(item),
            Self::Json(_) | Self::Text(_) | Self::File(_) | Self::Map(_) => {
                let before = std::mem::replace(self, Self::List(Vec::new()));
                *self = Self::List(vec![before, item]);
            }
        }
    }

    /// Returns the value as JSON, for the log and for development.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Json(value) => value.clone(),
            Self::Text(text) => Value::String(text.clone()),
            Self::File(file) => serde_json::json!({
                "name": file.name(), "size": file.size(), "contentType": file.content_type(),
            }),
            Self::List(list) => Value::Array(list.iter().map(Self::to_json).collect()),
            Self::Map(entries) => Value::Object(
                entries.iter().map(|(name, value)| (name.clone(), value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Returns the values of a map whose keys are all numbers, as `a[0]=x&a[1]=y` makes it, in numeric order.
    pub(super) fn numbered(entries: &[(String, ParamValue)]) -> Option<Vec<&ParamValue>> {
        let mut numbered = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            numbered.push((key.parse::<u16>().ok()?, value));
        }
        numbered.sort_by_key(|(number, _)| *number);
        Some(numbered.into_iter().map(|(_, value)| value).collect())
    }
}

/// Splits `a[b][]` into `a`, `b` and ``. Any other key is one name, unchanged; `None` if the key nests too deeply.
pub(super) fn split_key(key: &str) -> Option<(&str, Vec<&str>)> {
    let plain = Some((key, Vec::new()));
    let Some(open) = key.find('[').filter(|open| *open > 0) else { return plain };
    let Some(inner) = key[open..].strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) else { return plain };
    let parts: Vec<&str> = inner.split("][").collect();
    if parts.len() > MAX_DEPTH {
        return None;
    }
    if parts.iter().any(|part| part.contains(['[', ']'])) {
        return plain;
    }
    Some((&key[..open], parts))
}
