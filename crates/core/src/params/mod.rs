//! The params of a call, from every source: one map, decoded into the input type of an action.
//!
//! Path wins over body, body over files, files over query. JSON keeps its types; text (path, query, form) is parsed
//! as the requested type:
//!
//! | requested type | accepted text |
//! |---|---|
//! | a number | any number that Rust parses, except infinity and NaN |
//! | an integer | a whole number, also as `1.0` or `1e0` below 2^53 |
//! | `bool` | `true` `false` `1` `0` `on` `off` `yes` `no` |
//! | `Option` | empty text is `None` |
//! | a list | repeated keys, `a[]=1`, `a[0]=1`; one value is a list of one |
//! | a struct or a map | `a[b]=1` |
//! | an enum | its variant: `a=small`, with content `a[circle]=2`; as the whole input `circle=2` |
//! | any JSON | all text, as a string |
//!
//! A whole number in JSON may be written as `1.0` or `1e0` too. A number beyond the type of its field is a fault.
//!
//! Undeclared params are dropped. If decoding fails, or a number is beyond `f32` and the input has fields of that type,
//! the input is checked against its schema, so that all faults are reported at once. Their codes: `required`, `type`,
//! `length`, `range`, `enum`, `invalid`, and those of the author's own validators.

mod deserializer;
mod errors;
mod narrow;
mod schema;
mod schema_view;
mod upload;
mod value;
mod whole;

use std::fmt;

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use validator::Validate;

pub use upload::Upload;

use crate::error::{ActionError, Detail, ErrorKind, unknown_action};
use deserializer::ParamDeserializer;
use value::{ParamValue, split_key};

/// Most pairs of a query, a form or a multipart body.
const MAX_PAIRS: usize = 1000;

/// The input of an action: any type with `#[input]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the input of an action",
    label = "put `#[input]` on this type",
    note = "or derive `serde::Deserialize`, `schemars::JsonSchema` and `validator::Validate`, and implement `LastParameter`"
)]
pub trait Input: DeserializeOwned + JsonSchema + Validate + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned + JsonSchema + Validate + Send + 'static> Input for T {}

/// The input of an action without params: accepts everything, keeps nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, Deserialize, JsonSchema, Validate)]
pub struct NoInput {}

/// The params of a call.
#[derive(Clone, Default)]
pub struct Params {
    raw: Option<Box<RawValue>>,
    fields: Vec<Field>,
    pairs: usize,
}

#[derive(Clone)]
struct Field {
    name: String,
    source: Source,
    value: ParamValue,
}

impl Field {
    /// Replaces the value, unless it came from a stronger source.
    fn replace(&mut self, source: Source, value: ParamValue) {
        if self.source <= source {
            self.source = source;
            self.value = value;
        }
    }
}

/// The source of a param. Later variants win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Query,
    File,
    Body,
    Path,
}

impl Params {
    /// Takes one JSON object as text, which is decoded straight into the requested type.
    ///
    /// # Errors
    ///
    /// `malformed` if it is not an object.
    pub fn from_raw_json(object: Box<RawValue>) -> Result<Self, ActionError> {
        if !object.get().starts_with('{') {
            return Err(malformed("params are a JSON object"));
        }
        Ok(Self { raw: Some(object), ..Self::default() })
    }

    /// Takes a JSON body: an object's fields, an array as `payload`, nothing from an empty body.
    ///
    /// # Errors
    ///
    /// `malformed` if it is not valid JSON, or a scalar.
    pub fn set_json_body(&mut self, body: &[u8]) -> Result<(), ActionError> {
        // RFC 8259, 8.1 allows to ignore a byte order mark; PowerShell and .NET send one.
        let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
        if body.trim_ascii().is_empty() {
            return Ok(());
        }
        match serde_json::from_slice(body).map_err(|error| unreadable(&error))? {
            Value::Object(mut object) => {
                // Loops over the fields so far, a thousand at most: the body may have a hundred thousand.
                for field in &mut self.fields {
                    if let Some(value) = object.remove(&field.name) {
                        field.replace(Source::Body, ParamValue::Json(value));
                    }
                }
                self.fields.extend(fields_of(object));
            }
            Value::Array(list) => self.put("payload".into(), Source::Body, ParamValue::Json(Value::Array(list))),
            _ => return Err(malformed("a JSON body is an object or an array")),
        }
        Ok(())
    }

    /// Takes a query string.
    ///
    /// # Errors
    ///
    /// `payload_too_large` beyond a thousand pairs, `malformed` beyond eight levels.
    pub fn push_query(&mut self, query: &str) -> Result<(), ActionError> {
        form_urlencoded::parse(query.as_bytes()).try_for_each(|(key, value)| self.pair(&key, &value, Source::Query))
    }

    /// Takes an urlencoded form.
    ///
    /// # Errors
    ///
    /// Those of [`Params::push_query`].
    pub fn push_form(&mut self, form: &str) -> Result<(), ActionError> {
        form_urlencoded::parse(form.as_bytes()).try_for_each(|(key, value)| self.pair(&key, &value, Source::Body))
    }

    /// Takes a field of a multipart body.
    ///
    /// # Errors
    ///
    /// Those of [`Params::push_query`].
    pub fn push_field(&mut self, name: &str, text: String) -> Result<(), ActionError> {
        self.pair(name, &text, Source::Body)
    }

    /// Takes a file of a multipart body.
    ///
    /// # Errors
    ///
    /// Those of [`Params::push_query`].
    pub fn push_file(&mut self, name: &str, file: Upload) -> Result<(), ActionError> {
        self.count_pair()?;
        let (name, rest) = split_key(name).ok_or_else(|| malformed("a param nests too deeply"))?;
        self.add(name, &rest, Source::File, ParamValue::File(file))
    }

    /// Takes a parameter of the path.
    ///
    /// # Errors
    ///
    /// Those of [`Params::push_query`].
    pub fn push_path(&mut self, name: &str, value: String) -> Result<(), ActionError> {
        self.count_pair()?;
        self.put(name.to_owned(), Source::Path, ParamValue::Text(value));
        Ok(())
    }

    /// A param that is text or a number, as text. Over a socket this parses the whole frame again.
    pub fn get_str(&self, name: &str) -> Option<String> {
        if let Some(raw) = &self.raw {
            return match serde_json::from_str::<Map<String, Value>>(raw.get()).ok()?.remove(name)? {
                Value::String(text) => Some(text),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            };
        }
        match &self.fields.iter().find(|field| field.name == name)?.value {
            ParamValue::Text(text) | ParamValue::Json(Value::String(text)) => Some(text.clone()),
            ParamValue::Json(Value::Number(number)) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Decodes one param as a field of an input is decoded; with `only_path`, one of another source counts as missing. Over
    /// a socket this parses the whole frame again.
    ///
    /// # Errors
    ///
    /// `invalid_input`: the param is missing and `T` is no `Option`, or it is no `T`.
    pub(crate) fn decode_one<T: DeserializeOwned>(&self, name: &str, only_path: bool) -> Result<T, ActionError> {
        let field = match &self.raw {
            Some(raw) => object_of(raw)?.remove_entry(name).map(field_of_body),
            None => self.fields.iter().find(|field| field.name == name).cloned(),
        };
        let field = field.filter(|field| !only_path || field.source == Source::Path);
        // As serde does it: what is missing is null, which an `Option` takes.
        let Some(field) = field else {
            let missing = |_| ActionError::invalid_input(vec![Detail::new(name, "required", "is required")]);
            return T::deserialize(Value::Null).map_err(missing);
        };
        let decode = |field: &[Field]| T::deserialize(ParamDeserializer::param(&field[0].value)).ok();
        let fields = [field];
        let decoded = decode(&fields).or_else(|| decode(&whole::with_integers(&fields)?));
        decoded.ok_or_else(|| ActionError::invalid_input(vec![Detail::new(name, "invalid", "is not valid")]))
    }

    /// The requested version of an action. Over a socket this parses the whole frame again.
    ///
    /// # Errors
    ///
    /// Those of [`version_of`].
    pub fn version(&self) -> Result<Option<u32>, ActionError> {
        const NAME: &str = "apiVersion";
        match &self.raw {
            Some(raw) => version_of(object_of(raw)?.get(NAME)),
            None => {
                let field = self.fields.iter().find(|field| field.name == NAME);
                version_of(field.map(|field| field.value.to_json()).as_ref())
            }
        }
    }

    /// Decodes and validates an input.
    ///
    /// # Errors
    ///
    /// `invalid_input` with every fault, or with every violated validation rule. None of them contains the rejected
    /// value.
    pub fn decode<T: Input>(&self) -> Result<T, ActionError> {
        let input = match &self.raw {
            Some(raw) => match serde_json::from_str(raw.get()) {
                Ok(input) => input,
                // Decoded again as a body is: there, a duplicate name is no fault and its last value counts.
                Err(_) => decode_fields(&fields_of(object_of(raw)?))?,
            },
            None => decode_fields(&self.fields)?,
        };
        if !self.is_empty() && narrow::has_f32::<T>() {
            self.refuse_beyond_f32::<T>()?;
        }
        match T::validate(&input) {
            Ok(()) => Ok(input),
            Err(errors) => Err(ActionError::invalid_input(errors::details_of(&errors))),
        }
    }

    /// Refuses numbers that have become infinite in a field of type `f32`.
    fn refuse_beyond_f32<T: Input>(&self) -> Result<(), ActionError> {
        let faults = match &self.raw {
            Some(raw) => narrow::faults_of::<T>(&fields_of(object_of(raw)?)),
            None => narrow::faults_of::<T>(&self.fields),
        };
        if faults.is_empty() { Ok(()) } else { Err(ActionError::invalid_input(faults)) }
    }

    /// All params, for the log and for development. Hidden fields, at any depth, are replaced by `[FILTERED]`.
    pub(crate) fn to_json(&self, hidden: &dyn Fn(&str) -> bool) -> Map<String, Value> {
        let mut object = Map::new();
        if let Some(raw) = &self.raw {
            object = object_of(raw).unwrap_or_default();
        }
        for field in &self.fields {
            object.insert(field.name.clone(), field.value.to_json());
        }
        hide_fields(&mut object, hidden);
        object
    }

    /// Whether the call has no params.
    pub fn is_empty(&self) -> bool {
        self.raw.is_none() && self.fields.is_empty()
    }

    fn pair(&mut self, key: &str, value: &str, source: Source) -> Result<(), ActionError> {
        self.count_pair()?;
        let (name, rest) = split_key(key).ok_or_else(|| malformed("a param nests too deeply"))?;
        self.add(name, &rest, source, ParamValue::Text(value.to_owned()))
    }

    fn count_pair(&mut self) -> Result<(), ActionError> {
        self.pairs += 1;
        if self.pairs > MAX_PAIRS {
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, "a request has at most 1000 params"));
        }
        Ok(())
    }

    /// Adds a value to those of the same source; replaces those of a weaker one.
    fn add(&mut self, name: &str, rest: &[&str], source: Source, value: ParamValue) -> Result<(), ActionError> {
        match self.fields.iter_mut().find(|field| field.name == name) {
            Some(field) if field.source == source => field.value.add(rest, value),
            Some(field) if field.source > source => {}
            Some(field) => {
                field.source = source;
                field.value = ParamValue::nested(rest, value);
            }
            None => self.fields.push(Field { name: name.to_owned(), source, value: ParamValue::nested(rest, value) }),
        }
        Ok(())
    }

    fn put(&mut self, name: String, source: Source, value: ParamValue) {
        match self.fields.iter_mut().find(|field| field.name == name) {
            Some(field) => field.replace(source, value),
            None => self.fields.push(Field { name, source, value }),
        }
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.fields.iter().map(|field| field.name.as_str()).collect();
        f.debug_struct("Params").field("fields", &names).field("raw", &self.raw.is_some()).finish_non_exhaustive()
    }
}

/// Reads the value of `apiVersion`; `null` and empty text mean that no version is requested.
///
/// # Errors
///
/// `not_found` for anything that is not a version number.
pub fn version_of(requested: Option<&Value>) -> Result<Option<u32>, ActionError> {
    let version = match requested {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.parse().ok().or_else(|| whole::parse_integer(text)?.try_into().ok()),
        Some(Value::Number(number)) => {
            let whole = || number.as_f64().and_then(whole::integer_of);
            number.as_i64().or_else(whole).and_then(|number| number.try_into().ok())
        }
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
    };
    version.map(Some).ok_or_else(unknown_action)
}

/// Returns the fields of a JSON object as fields of a body.
fn fields_of(object: Map<String, Value>) -> Vec<Field> {
    object.into_iter().map(field_of_body).collect()
}

fn field_of_body((name, value): (String, Value)) -> Field {
    Field { name, source: Source::Body, value: ParamValue::Json(value) }
}

fn object_of(raw: &RawValue) -> Result<Map<String, Value>, ActionError> {
    serde_json::from_str(raw.get()).map_err(|error| unreadable(&error))
}

fn decode_fields<T: Input>(fields: &[Field]) -> Result<T, ActionError> {
    T::deserialize(ParamDeserializer::fields(fields)).or_else(|_| match whole::with_integers(fields) {
        Some(fields) => T::deserialize(ParamDeserializer::fields(&fields)).map_err(|_| faults::<T>(&fields)),
        None => Err(faults::<T>(fields)),
    })
}

/// Returns the error for an input that did not decode.
fn faults<T: Input>(fields: &[Field]) -> ActionError {
    let input = ParamValue::Map(fields.iter().map(|field| (field.name.clone(), field.value.clone())).collect());
    let mut details = schema::faults_of::<T>(&input);
    if details.is_empty() {
        let again = serde_path_to_error::deserialize::<_, T>(ParamDeserializer::fields(fields));
        details.extend(again.err().map(|error| errors::unexplained(error.path())));
    }
    ActionError::invalid_input(details)
}

/// Returns the error for JSON that serde_json did not parse. Its limits refuse some JSON whose syntax is right.
fn unreadable(error: &serde_json::Error) -> ActionError {
    let words = error.to_string();
    if words.starts_with("number out of range") {
        malformed("a number is beyond what can be read")
    } else if words.starts_with("recursion limit") {
        malformed("params nest too deeply")
    } else {
        malformed("the body is not valid JSON")
    }
}

fn hide_fields(object: &mut Map<String, Value>, hidden: &dyn Fn(&str) -> bool) {
    for (name, value) in object {
        if hidden(name) {
            *value = "[FILTERED]".into();
        } else {
            hide(value, hidden);
        }
    }
}

fn hide(value: &mut Value, hidden: &dyn Fn(&str) -> bool) {
    match value {
        Value::Object(object) => hide_fields(object, hidden),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, hidden)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn malformed(message: &'static str) -> ActionError {
    ActionError::of(ErrorKind::Malformed, message)
}

/// The schema of an input, as clients must send it.
pub fn input_schema<T: Input>() -> Schema {
    let settings = schemars::generate::SchemaSettings::draft2020_12().for_deserialize();
    settings.into_generator().into_root_schema_for::<T>()
}

#[cfg(test)]
mod tests;
