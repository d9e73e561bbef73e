//! Numbers beyond `f32`: serde turns `1e39` into infinity without an error.

use std::any::TypeId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use serde_json::Value;

use super::schema;
use super::schema_view::SchemaView;
use super::value::ParamValue;
use super::{Field, Input};
use crate::error::Detail;

/// Whether a type has a field of type `f32`, by its schema. Each thread remembers it, so that no call takes a lock; the
/// map is bounded by the number of the application's input types.
pub(super) fn has_f32<T: Input>() -> bool {
    thread_local! {
        static KNOWN: RefCell<HashMap<TypeId, bool, BuildHasherDefault<TypeIdHasher>>> = RefCell::default();
    }
    let known = KNOWN.with_borrow(|known| known.get(&TypeId::of::<T>()).copied());
    known.unwrap_or_else(|| {
        let has_f32 = mentions_float(&schema::schema_of::<T>());
        KNOWN.with_borrow_mut(|known| known.insert(TypeId::of::<T>(), has_f32));
        has_f32
    })
}

/// Takes the id of a type as it is: the compiler has hashed the type, and every call with params looks one up.
#[derive(Default)]
struct TypeIdHasher(u64);

impl Hasher for TypeIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, part: u64) {
        self.0 ^= part;
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
}

fn mentions_float(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.get("format").is_some_and(|format| format == "float") || fields.values().any(mentions_float)
        }
        Value::Array(list) => list.iter().any(mentions_float),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Returns the faults of an input that decoded, because a number beyond `f32` became infinite.
pub(super) fn faults_of<T: Input>(fields: &[Field]) -> Vec<Detail> {
    if !fields.iter().any(|field| has_beyond(SchemaView::of(&field.value))) {
        return Vec::new();
    }
    let input = ParamValue::Map(fields.iter().map(|field| (field.name.clone(), field.value.clone())).collect());
    schema::range_faults_of::<T>(&input)
}

/// Whether a number is finite, but not as `f32`.
pub(super) fn is_beyond(number: f64) -> bool {
    number.is_finite() && (number as f32).is_infinite()
}

/// Whether a value has a number that is beyond `f32`.
pub(super) fn has_beyond(view: SchemaView<'_>) -> bool {
    match view {
        SchemaView::Json(value) => has_beyond_json(value),
        SchemaView::Param(value) => match value {
            ParamValue::Json(value) => has_beyond_json(value),
            ParamValue::Text(text) => text.trim().parse().is_ok_and(is_beyond),
            ParamValue::List(list) => list.iter().any(|item| has_beyond(SchemaView::of(item))),
            ParamValue::Map(entries) => entries.iter().any(|(_, value)| has_beyond(SchemaView::of(value))),
            ParamValue::File(_) => false,
        },
    }
}

fn has_beyond_json(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_some_and(is_beyond),
        Value::Array(list) => list.iter().any(has_beyond_json),
        Value::Object(fields) => fields.values().any(has_beyond_json),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}
