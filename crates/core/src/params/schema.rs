//! Holds an input that did not decode against its schema, to tell all its faults at once.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};

use super::Input;
use super::errors::{MOST, Range, bound, cut, length_message};
use super::schema_view::Seen;
use super::value::Tree;
use crate::action::input_schema;
use crate::error::Detail;
use crate::metrics::bound_reached;

/// Most levels that are looked at; a schema may refer to itself.
const MAX_DEPTH: usize = 32;

/// Most places that are looked at: forms that refer to each other are tried in all their combinations.
const MAX_VISITS: usize = 10_000;

/// Everything that is wrong with `input`, as far as the schema of `T` tells.
pub(super) fn faults_of<T: Input>(input: &Tree) -> Vec<Detail> {
    let root = schema_of::<T>();
    let mut check = Check { root: &root, details: Vec::new(), visits: 0 };
    check.node(&root, Seen::of(input), "", 0);
    check.finish()
}

/// The schema of a type, made once: there are as many as an application has inputs.
fn schema_of<T: Input>() -> Arc<Value> {
    static MADE: OnceLock<Mutex<HashMap<TypeId, Arc<Value>>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let make = || Arc::new(input_schema::<T>().to_value());
    made.entry(TypeId::of::<T>()).or_insert_with(make).clone()
}

struct Check<'a> {
    root: &'a Value,
    details: Vec<Detail>,
    visits: usize,
}

impl<'a> Check<'a> {
    fn finish(mut self) -> Vec<Detail> {
        self.details.sort_by(|a, b| a.path.cmp(&b.path));
        // A schema may say the same twice: beside a reference, and behind it.
        self.details.dedup();
        if self.visits > MAX_VISITS {
            bound_reached("params.schema_visits");
            self.details.push(Detail::new(
                "",
                "invalid",
                "is not valid; it is too large to tell everything that is wrong",
            ));
        }
        self.details
    }

    fn node(&mut self, schema: &'a Value, seen: Seen<'_>, path: &str, depth: usize) {
        self.visits += 1;
        if depth > MAX_DEPTH || self.details.len() >= MOST || self.visits > MAX_VISITS {
            return;
        }
        let Some(fields) = schema.as_object() else { return };
        if let Some(target) = self.target(schema) {
            self.node(target, seen, path, depth + 1);
        }
        for choices in ["anyOf", "oneOf"].iter().filter_map(|key| fields.get(*key)?.as_array()) {
            self.choices(choices, seen, path, depth);
        }
        for part in fields.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.node(part, seen, path, depth + 1);
        }
        if let Some(allowed) = allowed(schema) {
            if !is_one_of(allowed, seen) {
                self.fault(path, "enum", one_of(allowed));
            }
            return;
        }
        if !self.has_type(fields, seen, path) || seen.is_null() && is(fields, "null") {
            return;
        }
        self.bounds(fields, seen, path);
        if seen.is_object() {
            self.fields(fields, seen, path, depth);
        } else if let Some(each) = fields.get("items") {
            for (index, item) in seen.items().into_iter().flatten().enumerate() {
                self.node(each, item, &format!("{path}[{index}]"), depth + 1);
            }
        }
    }

    /// What a schema refers to.
    fn target(&self, schema: &Value) -> Option<&'a Value> {
        self.root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
    }

    /// The value must fit one form. Those it cannot be meant for are left out; of the others, what is told is what keeps
    /// it from the one that fits best.
    fn choices(&mut self, choices: &'a [Value], seen: Seen<'_>, path: &str, depth: usize) {
        let (null, forms): (Vec<&Value>, Vec<&Value>) = choices.iter().partition(|form| form["type"] == "null");
        if seen.is_null() && !null.is_empty() {
            return;
        }
        if let [only] = forms[..] {
            return self.node(only, seen, path, depth + 1);
        }
        let meant: Vec<&Value> = forms.iter().copied().filter(|form| self.may_mean(form, seen)).collect();
        let mut best: Option<Vec<Detail>> = None;
        let before = self.details.len();
        for form in &meant {
            self.node(form, seen, path, depth + 1);
            let found = self.details.split_off(before);
            if found.is_empty() {
                return;
            }
            if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        match best {
            None => self.details.push(no_form(&forms, seen, path)),
            Some(found) if meant.len() > 2 && found.len() > 1 => self.fault(path, "enum", NO_FORM.into()),
            Some(found) => self.details.extend(found),
        }
    }

    fn may_mean(&self, form: &Value, seen: Seen<'_>) -> bool {
        has_marks(form, seen) && self.target(form).is_none_or(|target| has_marks(target, seen))
    }

    fn has_type(&mut self, schema: &Map<String, Value>, seen: Seen<'_>, path: &str) -> bool {
        if schema.get("format").and_then(Value::as_str) == Some("binary") {
            let is_file = matches!(seen, Seen::Tree(Tree::File(_)));
            if !is_file {
                self.fault(path, "type", "must be a file".into());
            }
            return is_file;
        }
        let names = types(schema.get("type"));
        if names.is_empty() || names.iter().any(|name| is_a(name, seen)) {
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
        if is(schema, "string") {
            self.length(schema, ["minLength", "maxLength"], "characters", path, || {
                Some(seen.string()?.chars().count())
            });
        }
        if is(schema, "array") {
            self.length(schema, ["minItems", "maxItems"], "items", path, || seen.len());
        }
        if is(schema, "number") || is(schema, "integer") {
            self.range(schema, seen, path);
        }
    }

    fn length(
        &mut self,
        schema: &Map<String, Value>,
        names: [&str; 2],
        what: &str,
        path: &str,
        count: impl FnOnce() -> Option<usize>,
    ) {
        let [min, max] = names.map(|name| schema.get(name));
        if min.is_none() && max.is_none() {
            return;
        }
        let Some(count) = count().map(|count| count as f64) else { return };
        let of = |bound: Option<&Value>| bound.and_then(Value::as_f64);
        if of(min).is_some_and(|min| count < min) || of(max).is_some_and(|max| count > max) {
            self.fault(path, "length", length_message(bound(min).as_deref(), bound(max).as_deref(), what));
        }
    }

    fn range(&mut self, schema: &Map<String, Value>, seen: Seen<'_>, path: &str) {
        let format = schema.get("format").and_then(Value::as_str);
        if let Some((min, max)) = format.and_then(integer_format)
            && seen.integer().is_some_and(|number| !(min..=max).contains(&number))
        {
            let (min, max) = (Some(min.to_string()), Some(max.to_string()));
            return self.fault(path, "range", Range { min, max, ..Range::default() }.message());
        }
        let Some(number) = seen.number() else { return };
        let most = if format == Some("float") { f64::from(f32::MAX) } else { f64::MAX };
        let of = |name: &str| schema.get(name).and_then(Value::as_f64);
        let inside = number.abs() <= most
            && of("minimum").is_none_or(|min| number >= min)
            && of("maximum").is_none_or(|max| number <= max)
            && of("exclusiveMinimum").is_none_or(|min| number > min)
            && of("exclusiveMaximum").is_none_or(|max| number < max);
        if !inside {
            let of = |name: &str| bound(schema.get(name));
            let (above, below) = (of("exclusiveMinimum"), of("exclusiveMaximum"));
            self.fault(path, "range", Range { min: of("minimum"), max: of("maximum"), above, below }.message());
        }
    }

    fn fields(&mut self, schema: &'a Map<String, Value>, seen: Seen<'_>, path: &str, depth: usize) {
        let inner = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if seen.field(name).is_none() {
                self.fault(&inner(name), "required", "is required".into());
            }
        }
        let declared = schema.get("properties").and_then(Value::as_object);
        for (name, property) in declared.into_iter().flatten() {
            if let Some(value) = seen.field(name) {
                self.node(property, value, &inner(name), depth + 1);
            }
        }
        let Some(others) = schema.get("additionalProperties").filter(|others| others.is_object()) else { return };
        for name in seen.names().into_iter().filter(|name| declared.is_none_or(|fields| !fields.contains_key(*name))) {
            if let Some(value) = seen.field(name) {
                self.node(others, value, &inner(cut(name)), depth + 1);
            }
        }
    }

    fn fault(&mut self, path: &str, code: &'static str, message: String) {
        if self.details.len() < MOST {
            self.details.push(Detail::new(path, code, message));
        }
    }
}

const NO_FORM: &str = "fits none of the forms it may have";

/// What is wrong with a value that is meant for none of the forms it may have.
fn no_form(forms: &[&Value], seen: Seen<'_>, path: &str) -> Detail {
    let values: Option<Vec<&[Value]>> = forms.iter().map(|form| allowed(form)).collect();
    if let Some(values) = values {
        return Detail::new(path, "enum", one_of(values.into_iter().flatten()));
    }
    let tags: Option<Vec<(&str, &Value)>> = forms.iter().map(|form| tags(form).next()).collect();
    match tags.as_deref() {
        Some([(tag, _), rest @ ..]) if rest.iter().all(|(other, _)| other == tag) => {
            let path = if path.is_empty() { (*tag).to_owned() } else { format!("{path}.{tag}") };
            match seen.field(tag) {
                None if seen.is_object() => Detail::new(path, "required", "is required"),
                _ => Detail::new(path, "enum", one_of(tags.iter().flatten().map(|(_, value)| *value))),
            }
        }
        _ => Detail::new(path, "enum", NO_FORM),
    }
}

/// Whether a value has what tells this form from the others: its type, its constant, its tag, its only name.
fn has_marks(form: &Value, seen: Seen<'_>) -> bool {
    let types = types(form.get("type"));
    if !types.is_empty() && !types.iter().any(|name| is_a(name, seen)) {
        return false;
    }
    let named = match form.get("required").and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::String(only)]) => seen.field(only).is_some(),
        _ => true,
    };
    let tagged = |(name, value)| seen.field(name).is_some_and(|given| is_one_of(std::slice::from_ref(value), given));
    named && tags(form).all(tagged) && allowed(form).is_none_or(|allowed| is_one_of(allowed, seen))
}

/// The fields of a form that must be there and can have but one value.
fn tags(form: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let required = form.get("required").and_then(Value::as_array).into_iter().flatten();
    required.filter_map(Value::as_str).filter_map(|name| Some((name, form.get("properties")?.get(name)?.get("const")?)))
}

/// The values that a schema lists.
fn allowed(schema: &Value) -> Option<&[Value]> {
    match schema.get("enum") {
        Some(Value::Array(all)) => Some(all),
        _ => schema.get("const").map(std::slice::from_ref),
    }
}

fn is_one_of(allowed: &[Value], seen: Seen<'_>) -> bool {
    allowed.iter().any(|value| match (value, seen) {
        (value, Seen::Json(given)) => value == given,
        (Value::String(text), Seen::Tree(_)) => seen.string() == Some(text),
        (value, Seen::Tree(_)) => seen.text() == Some(value.to_string().as_str()),
    })
}

fn one_of<'a>(allowed: impl IntoIterator<Item = &'a Value>) -> String {
    let names: Vec<String> = allowed.into_iter().take(20).map(ToString::to_string).collect();
    format!("must be one of {}", names.join(", "))
}

/// The types that a schema names; none means any.
fn types(named: Option<&Value>) -> Vec<&str> {
    match named {
        Some(Value::String(only)) => vec![only],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is(schema: &Map<String, Value>, name: &str) -> bool {
    types(schema.get("type")).contains(&name)
}

fn is_a(name: &str, seen: Seen<'_>) -> bool {
    match name {
        "null" => seen.is_null(),
        "string" => seen.string().is_some(),
        "integer" => seen.integer().is_some(),
        "number" => seen.number().is_some(),
        "boolean" => seen.is_bool(),
        "array" => seen.len().is_some(),
        "object" => seen.is_object(),
        _ => true,
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

#[cfg(test)]
mod tests;
