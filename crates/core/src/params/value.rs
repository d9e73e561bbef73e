//! What came under one name: JSON, text, a file, or a tree of those made by `a[b]` and repeated keys.

use serde_json::{Map, Value};

use super::upload::Upload;

/// Most levels of `a[b][c]`.
const MAX_DEPTH: usize = 8;

/// What came under one name.
#[derive(Clone)]
pub(super) enum Tree {
    Json(Value),
    Text(String),
    File(Upload),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// Hangs a value under the rest of its key.
    pub(super) fn nested(rest: &[&str], value: Tree) -> Self {
        match rest.split_first() {
            None => value,
            Some((&"", rest)) => Self::List(vec![Self::nested(rest, value)]),
            Some((key, rest)) => Self::Map(vec![((*key).to_owned(), Self::nested(rest, value))]),
        }
    }

    /// Adds a value of the same name: a second one makes a list, whose items nest no deeper than their keys.
    pub(super) fn add(&mut self, rest: &[&str], value: Tree) {
        if let (Self::Map(entries), Some((key, rest))) = (&mut *self, rest.split_first())
            && !key.is_empty()
        {
            match entries.iter_mut().find(|(name, _)| name == key) {
                Some((_, tree)) => tree.add(rest, value),
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

    /// For the log and for development.
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Json(value) => value.clone(),
            Self::Text(text) => Value::String(text.clone()),
            Self::File(file) => serde_json::json!({
                "name": file.name(), "size": file.size(), "contentType": file.content_type(),
            }),
            Self::List(list) => Value::Array(list.iter().map(Self::to_json).collect()),
            Self::Map(entries) => {
                Value::Object(entries.iter().map(|(name, tree)| (name.clone(), tree.to_json())).collect::<Map<_, _>>())
            }
        }
    }

    /// A map whose keys are `0..n`, as `a[0]=x&a[1]=y` makes it, in the order of the numbers.
    pub(super) fn numbered(entries: &[(String, Tree)]) -> Option<Vec<&Tree>> {
        let mut numbered = Vec::with_capacity(entries.len());
        for (key, tree) in entries {
            numbered.push((key.parse::<u16>().ok()?, tree));
        }
        numbered.sort_by_key(|(number, _)| *number);
        Some(numbered.into_iter().map(|(_, tree)| tree).collect())
    }
}

/// `a[b][]` → `a`, `b`, ``. What is no such key is a name as it stands; `None` if it nests too deeply.
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
