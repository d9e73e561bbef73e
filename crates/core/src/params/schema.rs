//! Checks an input that did not decode against its schema, to report all its faults at once.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::{Map, Value};

use super::Input;
use super::errors::{MAX_FAULTS, RangeRule, bound, cut, length_message};
use super::input_schema;
use super::narrow;
use super::schema_view::SchemaView;
use super::value::ParamValue;
use crate::error::Detail;
use crate::metrics::bound_reached;

/// Most levels that are checked; a schema may refer to itself.
const MAX_DEPTH: usize = 32;

/// Most values that are checked: forms that refer to each other are tried in all their combinations.
const MAX_VISITS: usize = 10_000;

/// Most fields of a map, and most items of a list, that are checked.
const MAX_ENTRIES: usize = 1000;

/// The code of the fault that the check stopped at [`MAX_VISITS`].
const TOO_LARGE: &str = "invalid";

/// Returns all faults of `input` that the schema of `T` shows.
pub(super) fn faults_of<T: Input>(input: &ParamValue) -> Vec<Detail> {
    check::<T>(input, false)
}

/// Returns the faults of an input that decoded, although a number in it is beyond `f32`. Values without such a number
/// are passed over, so that a list may be of any length.
pub(super) fn range_faults_of<T: Input>(input: &ParamValue) -> Vec<Detail> {
    let mut details = check::<T>(input, true);
    details.retain(|detail| ["range", TOO_LARGE].contains(&&*detail.code));
    details
}

fn check<T: Input>(input: &ParamValue, only_beyond_f32: bool) -> Vec<Detail> {
    let root = schema_of::<T>();
    let max_entries = if only_beyond_f32 { usize::MAX } else { MAX_ENTRIES };
    let mut check = SchemaCheck { root: &root, details: Vec::new(), visits: 0, max_entries, only_beyond_f32 };
    check.node(&root, SchemaView::of(input), "", 0);
    check.finish()
}

/// The schema of a type, generated once. The map is bounded by the number of the application's input types.
pub(super) fn schema_of<T: Input>() -> Arc<Value> {
    static SCHEMAS: OnceLock<Mutex<HashMap<TypeId, Arc<Value>>>> = OnceLock::new();
    let mut schemas = SCHEMAS.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let generate = || Arc::new(input_schema::<T>().to_value());
    schemas.entry(TypeId::of::<T>()).or_insert_with(generate).clone()
}

struct SchemaCheck<'a> {
    root: &'a Value,
    details: Vec<Detail>,
    visits: usize,
    max_entries: usize,
    /// Passes over values without a number beyond `f32`.
    only_beyond_f32: bool,
}

impl<'a> SchemaCheck<'a> {
    fn finish(mut self) -> Vec<Detail> {
        self.details.sort_by(|a, b| a.path.cmp(&b.path));
        // A schema may state a rule twice: beside a reference, and in its target.
        self.details.dedup();
        if self.visits > MAX_VISITS {
            bound_reached("params.schema_visits");
            self.details.push(Detail::new(
                "",
                TOO_LARGE,
                "is not valid; it is too large to tell everything that is wrong",
            ));
        }
        self.details
    }

    fn node(&mut self, schema: &'a Value, view: SchemaView<'_>, path: &str, depth: usize) {
        self.visits += 1;
        if depth > MAX_DEPTH || self.details.len() >= MAX_FAULTS || self.visits > MAX_VISITS {
            return;
        }
        let Some(fields) = schema.as_object() else { return };
        if let Some(target) = self.target(schema) {
            self.node(target, view, path, depth + 1);
        }
        for choices in ["anyOf", "oneOf"].iter().filter_map(|key| fields.get(*key)?.as_array()) {
            self.choices(choices, view, path, depth);
        }
        for part in fields.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.node(part, view, path, depth + 1);
        }
        if let Some(allowed) = allowed(schema) {
            if !is_one_of(allowed, view) {
                self.fault(path, "enum", one_of(allowed));
            }
            return;
        }
        if !self.has_type(fields, view, path) || view.is_null() && is(fields, "null") {
            return;
        }
        self.bounds(fields, view, path);
        if view.is_object() {
            self.fields(fields, view, path, depth);
        } else {
            self.items(fields, view, path, depth);
        }
    }

    fn items(&mut self, schema: &'a Map<String, Value>, view: SchemaView<'_>, path: &str, depth: usize) {
        let first = schema.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let rest = schema.get("items");
        if first.is_empty() && rest.is_none() {
            return;
        }
        for (index, item) in view.items(self.max_entries).into_iter().flatten().enumerate() {
            if let Some(each) = first.get(index).or(rest).filter(|_| !self.passes_over(item)) {
                self.node(each, item, &format!("{path}[{index}]"), depth + 1);
            }
        }
    }

    fn passes_over(&self, view: SchemaView<'_>) -> bool {
        self.only_beyond_f32 && !narrow::has_beyond(view)
    }

    /// The target of a schema's `$ref`.
    fn target(&self, schema: &Value) -> Option<&'a Value> {
        self.root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
    }

    /// Checks that the value fits one of several forms. Forms whose marks it lacks are skipped; of the others, the one
    /// with the fewest faults is reported. If more than two remain and the best has several faults, the guess would be
    /// poor: then only the misfit is reported.
    fn choices(&mut self, choices: &'a [Value], view: SchemaView<'_>, path: &str, depth: usize) {
        let (null, forms): (Vec<&Value>, Vec<&Value>) = choices.iter().partition(|form| form["type"] == "null");
        if view.is_null() && !null.is_empty() {
            return;
        }
        if let [only] = forms[..] {
            return self.node(only, view, path, depth + 1);
        }
        let candidates: Vec<&Value> = forms.iter().copied().filter(|form| self.may_match(form, view)).collect();
        // Which form it is depends on all of its values.
        let only_beyond_f32 = std::mem::take(&mut self.only_beyond_f32);
        let best = self.best_of(&candidates, view, path, depth);
        self.only_beyond_f32 = only_beyond_f32;
        match best {
            Some(found) if found.is_empty() => {}
            None => self.details.push(no_form(&forms, view, path)),
            Some(found) if candidates.len() > 2 && found.len() > 1 => self.fault(path, "enum", NO_FORM.into()),
            Some(found) => self.details.extend(found),
        }
    }

    /// Returns the faults of the form that has the fewest; `None` without a form.
    fn best_of(
        &mut self,
        candidates: &[&'a Value],
        view: SchemaView<'_>,
        path: &str,
        depth: usize,
    ) -> Option<Vec<Detail>> {
        let mut best: Option<Vec<Detail>> = None;
        let before = self.details.len();
        for form in candidates {
            self.node(form, view, path, depth + 1);
            let found = self.details.split_off(before);
            if found.is_empty() {
                return Some(found);
            }
            if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        best
    }

    fn may_match(&self, form: &Value, view: SchemaView<'_>) -> bool {
        has_marks(form, view) && self.target(form).is_none_or(|target| has_marks(target, view))
    }

    fn has_type(&mut self, schema: &Map<String, Value>, view: SchemaView<'_>, path: &str) -> bool {
        if schema.get("format").and_then(Value::as_str) == Some("binary") {
            let is_file = matches!(view, SchemaView::Param(ParamValue::File(_)));
            if !is_file {
                self.fault(path, "type", "must be a file".into());
            }
            return is_file;
        }
        let names = types(schema.get("type"));
        if names.is_empty() || names.iter().any(|name| is_a(name, view)) {
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

    fn bounds(&mut self, schema: &Map<String, Value>, view: SchemaView<'_>, path: &str) {
        if is(schema, "string") {
            self.length(schema, ["minLength", "maxLength"], "characters", path, || {
                Some(view.string()?.chars().count())
            });
        }
        if is(schema, "array") {
            self.length(schema, ["minItems", "maxItems"], "items", path, || view.len());
        }
        if is(schema, "number") || is(schema, "integer") {
            self.range(schema, view, path);
        }
    }

    fn length(
        &mut self,
        schema: &Map<String, Value>,
        names: [&str; 2],
        unit: &str,
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
            self.fault(path, "length", length_message(bound(min).as_deref(), bound(max).as_deref(), unit));
        }
    }

    fn range(&mut self, schema: &Map<String, Value>, view: SchemaView<'_>, path: &str) {
        let format = schema.get("format").and_then(Value::as_str);
        if let Some((min, max)) = format.and_then(integer_format)
            && view.integer().is_some_and(|number| !(min..=max).contains(&number))
        {
            let (min, max) = (Some(min.to_string()), Some(max.to_string()));
            return self.fault(path, "range", RangeRule { min, max, ..RangeRule::default() }.message());
        }
        let Some(number) = view.number() else { return };
        let of = |name: &str| schema.get(name).and_then(Value::as_f64);
        let is_narrow = format == Some("float");
        let inside = number.is_finite()
            && !(is_narrow && narrow::is_beyond(number))
            && of("minimum").is_none_or(|min| number >= min)
            && of("maximum").is_none_or(|max| number <= max)
            && of("exclusiveMinimum").is_none_or(|min| number > min)
            && of("exclusiveMaximum").is_none_or(|max| number < max);
        if !inside {
            let of = |name: &str| bound(schema.get(name));
            let (above, below) = (of("exclusiveMinimum"), of("exclusiveMaximum"));
            self.fault(path, "range", RangeRule { min: of("minimum"), max: of("maximum"), above, below }.message());
        }
    }

    fn fields(&mut self, schema: &'a Map<String, Value>, view: SchemaView<'_>, path: &str, depth: usize) {
        let inner = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if view.field(name).is_none() {
                self.fault(&inner(name), "required", "is required".into());
            }
        }
        let declared = schema.get("properties").and_then(Value::as_object);
        for (name, property) in declared.into_iter().flatten() {
            if let Some(value) = view.field(name).filter(|value| !self.passes_over(*value)) {
                self.node(property, value, &inner(name), depth + 1);
            }
        }
        // A map whose keys are numbers has one pattern, which its keys fit: they were decoded, or are another fault.
        let patterns = schema.get("patternProperties").and_then(Value::as_object).filter(|all| all.len() == 1);
        let others = patterns.and_then(|all| all.values().next()).or_else(|| schema.get("additionalProperties"));
        let Some(others) = others.filter(|others| others.is_object()) else { return };
        for name in view
            .names(self.max_entries)
            .into_iter()
            .filter(|name| declared.is_none_or(|fields| !fields.contains_key(*name)))
        {
            if let Some(value) = view.field(name).filter(|value| !self.passes_over(*value)) {
                self.node(others, value, &inner(cut(name)), depth + 1);
            }
        }
    }

    fn fault(&mut self, path: &str, code: &'static str, message: String) {
        if self.details.len() < MAX_FAULTS {
            self.details.push(Detail::new(path, code, message));
        }
    }
}

const NO_FORM: &str = "fits none of the forms it may have";

/// The fault of a value that matches none of the forms it may have.
fn no_form(forms: &[&Value], view: SchemaView<'_>, path: &str) -> Detail {
    let values: Option<Vec<&[Value]>> = forms.iter().map(|form| allowed(form)).collect();
    if let Some(values) = values {
        return Detail::new(path, "enum", one_of(values.into_iter().flatten()));
    }
    let tags: Option<Vec<(&str, &Value)>> = forms.iter().map(|form| tags(form).next()).collect();
    match tags.as_deref() {
        Some([(tag, _), rest @ ..]) if rest.iter().all(|(other, _)| other == tag) => {
            let path = if path.is_empty() { (*tag).to_owned() } else { format!("{path}.{tag}") };
            match view.field(tag) {
                None if view.is_object() => Detail::new(path, "required", "is required"),
                _ => Detail::new(path, "enum", one_of(tags.iter().flatten().map(|(_, value)| *value))),
            }
        }
        _ => Detail::new(path, "enum", NO_FORM),
    }
}

/// Whether a value has the marks of this form: its type, its constant, its tag, its only required field.
fn has_marks(form: &Value, view: SchemaView<'_>) -> bool {
    let types = types(form.get("type"));
    if !types.is_empty() && !types.iter().any(|name| is_a(name, view)) {
        return false;
    }
    let named = match form.get("required").and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::String(only)]) => view.field(only).is_some(),
        _ => true,
    };
    let tagged = |(name, value)| view.field(name).is_some_and(|given| is_one_of(std::slice::from_ref(value), given));
    named && tags(form).all(tagged) && allowed(form).is_none_or(|allowed| is_one_of(allowed, view))
}

/// The tags of a form: required fields that can have only one value.
fn tags(form: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let required = form.get("required").and_then(Value::as_array).into_iter().flatten();
    required.filter_map(Value::as_str).filter_map(|name| Some((name, form.get("properties")?.get(name)?.get("const")?)))
}

/// The values of a schema's `enum` or `const`.
fn allowed(schema: &Value) -> Option<&[Value]> {
    match schema.get("enum") {
        Some(Value::Array(all)) => Some(all),
        _ => schema.get("const").map(std::slice::from_ref),
    }
}

fn is_one_of(allowed: &[Value], view: SchemaView<'_>) -> bool {
    allowed.iter().any(|value| match (value, view) {
        (value, SchemaView::Json(given)) => value == given,
        (Value::String(text), SchemaView::Param(_)) => view.string() == Some(text),
        (value, SchemaView::Param(_)) => view.text() == Some(value.to_string().as_str()),
    })
}

fn one_of<'a>(allowed: impl IntoIterator<Item = &'a Value>) -> String {
    let names: Vec<String> = allowed.into_iter().take(20).map(ToString::to_string).collect();
    format!("must be one of {}", names.join(", "))
}

/// The types of a schema; an empty list means any.
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

fn is_a(name: &str, view: SchemaView<'_>) -> bool {
    match name {
        "null" => view.is_null(),
        "string" => view.string().is_some(),
        "integer" => view.integer().is_some(),
        "number" => view.number().is_some(),
        "boolean" => view.is_bool(),
        "array" => view.len().is_some(),
        "object" => view.is_object(),
        _ => true,
    }
}

/// The bounds of an integer type. The schema gives only the type's name.
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
