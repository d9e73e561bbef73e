//! Holds an input that did not decode against its schema, to tell all its faults at once.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};

use super::Input;
use super::errors::{MOST, bound, length_message, range_message};
use super::text::parse_bool;
use super::tree::Tree;
use crate::action::input_schema;
use crate::error::Detail;

/// Most levels that are looked at; a schema may refer to itself.
const MAX_DEPTH: usize = 32;

/// Most fields of a map that are looked at.
const MAX_NAMES: usize = 1000;

/// Everything that is wrong with `input`, as far as the schema of `T` tells.
pub(super) fn faults_of<T: Input>(input: &Tree) -> Vec<Detail> {
    let root = schema_of::<T>();
    let mut check = Check { root: &root, details: Vec::new() };
    check.node(&root, Seen::of(input), "", 0);
    check.details.sort_by(|a, b| a.path.cmp(&b.path));
    check.details
}

/// The schema of a type, made once: there are as many as an application has inputs.
fn schema_of<T: Input>() -> Arc<Value> {
    static MADE: OnceLock<Mutex<HashMap<TypeId, Arc<Value>>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let make = || Arc::new(input_schema::<T>().to_value());
    made.entry(TypeId::of::<T>()).or_insert_with(make).clone()
}

/// A value, wherever it came from.
#[derive(Clone, Copy)]
enum Seen<'a> {
    Json(&'a Value),
    Tree(&'a Tree),
}

impl<'a> Seen<'a> {
    fn of(tree: &'a Tree) -> Self {
        match tree {
            Tree::Json(value) => Self::Json(value),
            other => Self::Tree(other),
        }
    }

    fn text(self) -> Option<&'a str> {
        match self {
            Self::Tree(Tree::Text(text)) => Some(text.trim()),
            _ => None,
        }
    }

    fn is_null(self) -> bool {
        matches!(self, Self::Json(Value::Null)) || self.text() == Some("")
    }

    fn string(self) -> Option<&'a str> {
        match self {
            Self::Json(Value::String(text)) | Self::Tree(Tree::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Json(value) => value.as_f64(),
            Self::Tree(_) => self.text()?.parse().ok().filter(|number: &f64| number.is_finite()),
        }
    }

    fn is_integer(self) -> bool {
        match self {
            Self::Json(value) => value.is_i64() || value.is_u64(),
            Self::Tree(_) => self.text().is_some_and(|text| text.parse::<i128>().is_ok()),
        }
    }

    fn integer(self) -> Option<i128> {
        match self {
            Self::Json(value) => value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from)),
            Self::Tree(_) => self.text()?.parse().ok(),
        }
    }

    /// The names of an object's fields, as many as may be told of.
    fn names(self) -> Vec<&'a str> {
        match self {
            Self::Json(Value::Object(fields)) => fields.keys().take(MAX_NAMES).map(String::as_str).collect(),
            Self::Tree(Tree::Map(entries)) => entries.iter().take(MAX_NAMES).map(|(name, _)| name.as_str()).collect(),
            Self::Json(_) | Self::Tree(_) => Vec::new(),
        }
    }

    fn is_bool(self) -> bool {
        match self {
            Self::Json(value) => value.is_boolean(),
            Self::Tree(_) => self.text().is_some_and(|text| parse_bool(text).is_some()),
        }
    }

    fn items(self) -> Option<Vec<Seen<'a>>> {
        match self {
            Self::Json(value) => value.as_array().map(|list| list.iter().map(Self::Json).collect()),
            Self::Tree(Tree::List(list)) => Some(list.iter().map(Self::of).collect()),
            Self::Tree(Tree::Map(entries)) => {
                Tree::numbered(entries).map(|list| list.into_iter().map(Self::of).collect())
            }
            Self::Tree(Tree::Text(_) | Tree::File(_)) => Some(vec![self]),
            Self::Tree(Tree::Json(value)) => Self::Json(value).items(),
        }
    }

    fn is_object(self) -> bool {
        matches!(self, Self::Json(Value::Object(_)) | Self::Tree(Tree::Map(_)))
    }

    fn field(self, name: &str) -> Option<Seen<'a>> {
        match self {
            Self::Json(value) => value.get(name).map(Self::Json),
            Self::Tree(Tree::Map(entries)) => {
                entries.iter().find(|(key, _)| key == name).map(|(_, tree)| Self::of(tree))
            }
            Self::Tree(_) => None,
        }
    }
}

struct Check<'a> {
    root: &'a Value,
    details: Vec<Detail>,
}

impl Check<'_> {
    fn node(&mut self, schema: &Value, seen: Seen<'_>, path: &str, depth: usize) {
        let Some(schema) = schema.as_object() else { return };
        if depth > MAX_DEPTH || self.details.len() >= MOST {
            return;
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|name| self.resolve(name)) {
            return self.node(&target, seen, path, depth + 1);
        }
        for key in ["anyOf", "oneOf"] {
            if let Some(choices) = schema.get(key).and_then(Value::as_array) {
                return self.choices(choices, seen, path, depth);
            }
        }
        if let Some(all) = schema.get("allOf").and_then(Value::as_array) {
            all.iter().for_each(|part| self.node(part, seen, path, depth + 1));
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
            return self.one_of(allowed, seen, path);
        }
        if let Some(only) = schema.get("const") {
            return self.one_of(std::slice::from_ref(only), seen, path);
        }
        if !self.has_type(schema, seen, path) || seen.is_null() && allows_null(schema) {
            return;
        }
        self.bounds(schema, seen, path);
        if seen.is_object() {
            self.fields(schema, seen, path, depth);
        } else if schema.contains_key("items")
            && let (Some(items), Some(each)) = (seen.items(), schema.get("items"))
        {
            for (index, item) in items.into_iter().enumerate().take(1000) {
                self.node(each, item, &format!("{path}[{index}]"), depth + 1);
            }
        }
    }

    fn resolve(&self, name: &str) -> Option<Value> {
        self.root.pointer(name.strip_prefix('#')?).cloned()
    }

    /// The value must fit one choice; what is told is what keeps it from the choice that fits best.
    fn choices(&mut self, choices: &[Value], seen: Seen<'_>, path: &str, depth: usize) {
        let mut best: Option<Vec<Detail>> = None;
        for choice in choices {
            if choice.get("type").and_then(Value::as_str) == Some("null") {
                if seen.is_null() {
                    return;
                }
                continue;
            }
            let mut tried = Check { root: self.root, details: Vec::new() };
            tried.node(choice, seen, path, depth + 1);
            if tried.details.is_empty() {
                return;
            }
            if best.as_ref().is_none_or(|best| tried.details.len() < best.len()) {
                best = Some(tried.details);
            }
        }
        let mut found = best.unwrap_or_default();
        if choices.len() > 2 && found.len() > 1 {
            found = vec![Detail::new(path, "enum", "fits none of the forms it may have")];
        }
        self.details.extend(found);
    }

    fn one_of(&mut self, allowed: &[Value], seen: Seen<'_>, path: &str) {
        let fits = |value: &Value| match (value, seen) {
            (value, Seen::Json(given)) => value == given,
            (Value::String(text), Seen::Tree(_)) => seen.string() == Some(text),
            (value, Seen::Tree(_)) => seen.text() == Some(value.to_string().as_str()),
        };
        if !allowed.iter().any(fits) {
            let names: Vec<String> = allowed.iter().take(20).map(ToString::to_string).collect();
            self.fault(path, "enum", format!("must be one of {}", names.join(", ")));
        }
    }

    fn has_type(&mut self, schema: &Map<String, Value>, seen: Seen<'_>, path: &str) -> bool {
        if schema.get("format").and_then(Value::as_str) == Some("binary") {
            if matches!(seen, Seen::Tree(Tree::File(_))) {
                return true;
            }
            self.fault(path, "type", "must be a file".into());
            return false;
        }
        let names: Vec<&str> = match schema.get("type") {
            None => return true,
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            Some(_) => return true,
        };
        let fits = |name: &&str| match *name {
            "null" => seen.is_null(),
            "string" => seen.string().is_some(),
            "integer" => seen.is_integer(),
            "number" => seen.number().is_some(),
            "boolean" => seen.is_bool(),
            "array" => seen.items().is_some(),
            "object" => seen.is_object(),
            _ => true,
        };
        if names.iter().any(fits) {
            return true;
        }
        let words = names.iter().filter(|name| **name != "null").map(|name| match *name {
            "string" => "a string",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            _ => "an object",
        });
        self.fault(path, "type", format!("must be {}", words.collect::<Vec<_>>().join(" or ")));
        false
    }

    fn bounds(&mut self, schema: &Map<String, Value>, seen: Seen<'_>, path: &str) {
        let of = |name: &str| schema.get(name).and_then(Value::as_f64);
        if let Some((min, max)) = schema.get("format").and_then(Value::as_str).and_then(integer_format)
            && seen.integer().is_some_and(|number| !(min..=max).contains(&number))
        {
            return self.fault(path, "range", range_message(Some(&min.to_string()), Some(&max.to_string())));
        }
        let outside = |value: f64, min: Option<f64>, max: Option<f64>| {
            min.is_some_and(|min| value < min) || max.is_some_and(|max| value > max)
        };
        if let Some(text) = seen.string().filter(|_| is(schema, "string")) {
            let (min, max) = ("minLength", "maxLength");
            if outside(text.chars().count() as f64, of(min), of(max)) {
                let words =
                    length_message(bound(schema.get(min)).as_deref(), bound(schema.get(max)).as_deref(), "characters");
                self.fault(path, "length", words);
            }
        }
        if let Some(items) = seen.items().filter(|_| is(schema, "array")) {
            let (min, max) = ("minItems", "maxItems");
            if outside(items.len() as f64, of(min), of(max)) {
                let words =
                    length_message(bound(schema.get(min)).as_deref(), bound(schema.get(max)).as_deref(), "items");
                self.fault(path, "length", words);
            }
        }
        if let Some(number) = seen.number().filter(|_| is(schema, "number") || is(schema, "integer")) {
            let (min, max) = ("minimum", "maximum");
            let beyond = of("exclusiveMinimum").is_some_and(|min| number <= min)
                || of("exclusiveMaximum").is_some_and(|max| number >= max);
            if beyond || outside(number, of(min), of(max)) {
                let low = schema.get(min).or_else(|| schema.get("exclusiveMinimum"));
                let high = schema.get(max).or_else(|| schema.get("exclusiveMaximum"));
                self.fault(path, "range", range_message(bound(low).as_deref(), bound(high).as_deref()));
            }
        }
    }

    fn fields(&mut self, schema: &Map<String, Value>, seen: Seen<'_>, path: &str, depth: usize) {
        let inner = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if seen.field(name).is_none() {
                self.fault(&inner(name), "required", "is required".into());
            }
        }
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if let Some(value) = seen.field(name) {
                self.node(property, value, &inner(name), depth + 1);
            }
        }
        let declared = schema.get("properties").and_then(Value::as_object);
        if let Some(others) = schema.get("additionalProperties").filter(|others| others.is_object()) {
            for name in
                seen.names().into_iter().filter(|name| declared.is_none_or(|fields| !fields.contains_key(*name)))
            {
                if let Some(value) = seen.field(name) {
                    self.node(others, value, &inner(name), depth + 1);
                }
            }
        }
    }

    fn fault(&mut self, path: &str, code: &'static str, message: String) {
        if self.details.len() < MOST {
            self.details.push(Detail::new(path, code, message));
        }
    }
}

fn is(schema: &Map<String, Value>, name: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(only)) => only == name,
        Some(Value::Array(names)) => names.iter().any(|one| one == name),
        _ => false,
    }
}

/// The bounds of an integer type; the schema names the type and leaves them out.
fn integer_format(name: &str) -> Option<(i128, i128)> {
    Some(match name {
        "int8" => (i8::MIN.into(), i8::MAX.into()),
        "int16" => (i16::MIN.into(), i16::MAX.into()),
        "int32" => (i32::MIN.into(), i32::MAX.into()),
        "int64" | "int" => (i64::MIN.into(), i64::MAX.into()),
        "uint8" => (0, u8::MAX.into()),
        "uint16" => (0, u16::MAX.into()),
        "uint32" => (0, u32::MAX.into()),
        "uint64" | "uint" => (0, u64::MAX.into()),
        _ => return None,
    })
}

fn allows_null(schema: &Map<String, Value>) -> bool {
    is(schema, "null")
}
