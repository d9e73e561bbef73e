//! Whole numbers that are written with a fraction or an exponent, as `1.0` and `1e0`: JSON Schema counts them as
//! integers, serde does not.

use serde_json::{Number, Value};

use super::Field;
use super::value::ParamValue;

/// Integers below this are exact as `f64`: 2^53. The number itself is also what 2^53 + 1 is read as.
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;

/// Returns the integer that a float stands for.
pub(super) fn integer_of(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < EXACT_BELOW).then_some(number as i64)
}

/// Parses the text of an integer with a fraction or an exponent.
pub(super) fn parse_integer(text: &str) -> Option<i64> {
    integer_of(text.parse().ok()?)
}

/// Returns the fields with each whole float as an integer; `None` if there is none.
pub(super) fn with_integers(fields: &[Field]) -> Option<Vec<Field>> {
    if !fields.iter().any(|field| has_whole_float(&field.value)) {
        return None;
    }
    let converted = fields.iter().map(|field| {
        let mut value = field.value.clone();
        convert_param(&mut value);
        Field { name: field.name.clone(), source: field.source, value }
    });
    Some(converted.collect())
}

fn has_whole_float(value: &ParamValue) -> bool {
    match value {
        ParamValue::Json(value) => has_whole_json(value),
        ParamValue::List(list) => list.iter().any(has_whole_float),
        ParamValue::Map(entries) => entries.iter().any(|(_, value)| has_whole_float(value)),
        ParamValue::Text(_) | ParamValue::File(_) => false,
    }
}

fn has_whole_json(value: &Value) -> bool {
    match value {
        Value::Number(number) => whole(number).is_some(),
        Value::Array(list) => list.iter().any(has_whole_json),
        Value::Object(fields) => fields.values().any(has_whole_json),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

fn convert_param(value: &mut ParamValue) {
    match value {
        ParamValue::Json(value) => convert(value),
        ParamValue::List(list) => list.iter_mut().for_each(convert_param),
        ParamValue::Map(entries) => entries.iter_mut().for_each(|(_, value)| convert_param(value)),
        ParamValue::Text(_) | ParamValue::File(_) => {}
    }
}

/// Recursion is as deep as serde_json reads: 128 levels.
fn convert(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(integer) = whole(number) {
                *number = integer.into();
            }
        }
        Value::Array(list) => list.iter_mut().for_each(convert),
        Value::Object(fields) => fields.values_mut().for_each(convert),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn whole(number: &Number) -> Option<i64> {
    number.is_f64().then(|| integer_of(number.as_f64()?)).flatten()
}
