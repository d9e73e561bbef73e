//! Typed calls: from an action's definition and input to a request, and from an answer to its output.

use std::any::TypeId;
use std::fmt;

use form_urlencoded::Serializer;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use phalanx_core::action::Method as RouteMethod;
use phalanx_core::http::Method;
use phalanx_core::registry::path_of;
use phalanx_core::{ActionDef, Exposure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::response::TestResponse;

/// The characters of a segment of a path that are encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same for several segments.
const SEGMENTS: &AsciiSet = &SEGMENT.remove(b'/');

/// The error of a call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TestError {
    /// Its code, such as `unauthenticated`; empty if the answer is no error of Phalanx.
    pub code: String,
    /// Its message.
    pub message: String,
    /// Its details: `path`, `code` and `message` of each field of the input that is wrong.
    pub details: Vec<Value>,
}

impl TestError {
    /// The error in the body of an answer.
    fn of_body(body: &Value) -> Option<Self> {
        let error = body.get("error")?;
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        let details = error["details"].as_array().cloned().unwrap_or_default();
        Some(Self { code: text("code")?, message: text("message").unwrap_or_default(), details })
    }

    pub(super) fn of_response(response: &TestResponse) -> Result<(), Self> {
        if response.status.is_success() {
            return Ok(());
        }
        let body = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        let other = || Self { code: String::new(), message: format!("{response:?}"), details: Vec::new() };
        Err(Self::of_body(&body).unwrap_or_else(other))
    }

    pub(super) fn of_reply(reply: &Value) -> Result<(), Self> {
        Self::of_body(reply).map_or(Ok(()), Err)
    }
}

impl fmt::Display for TestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)?;
        self.details.iter().try_for_each(|detail| write!(f, "; {detail}"))
    }
}

impl std::error::Error for TestError {}

/// A request for an action.
#[derive(Debug)]
pub(super) struct ActionRequest {
    pub(super) method: Method,
    pub(super) target: String,
    /// Null if there is none.
    pub(super) body: Value,
}

impl ActionRequest {
    /// Makes the request for an action's first route.
    ///
    /// # Errors
    ///
    /// It has none, or its input does not fit.
    pub(super) fn new(action: &ActionDef, prefix: &str, input: &impl Serialize) -> Result<Self, String> {
        let Some(route) = action.routes.first() else {
            let remedy = match action.exposure {
                Exposure::Internal => "it is internal: call an action that calls it, or app.run(…) with node.call",
                Exposure::Public | Exposure::HttpOnly => "call it over a socket: client.socket().await.call::<…>(…)",
            };
            return Err(format!("no route leads to the action {}: {remedy}", action.name));
        };
        let mut fields = fields_of(action, input)?;
        let mut path = prefix.trim_end_matches('/').to_owned();
        for segment in path_of(action, route).split('/').skip(1) {
            path.push('/');
            match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                Some(name) => {
                    let (name, set) = name.strip_prefix('*').map_or((name, SEGMENT), |name| (name, SEGMENTS));
                    let value = fields.remove(name).and_then(|value| text_of(&value));
                    let value = value.filter(|value| !value.is_empty()).ok_or_else(|| {
                        format!("the path of the action {} needs a value for {name}: {path}{{{name}}}", action.name)
                    })?;
                    path.extend(utf8_percent_encode(&value, set));
                }
                None => path.push_str(segment),
            }
        }
        let (method, has_body) = match route.method {
            RouteMethod::Get => (Method::GET, false),
            RouteMethod::Delete => (Method::DELETE, false),
            RouteMethod::Post => (Method::POST, true),
            RouteMethod::Put => (Method::PUT, true),
            RouteMethod::Patch => (Method::PATCH, true),
        };
        if has_body {
            return Ok(Self { method, target: path, body: Value::Object(fields) });
        }
        let mut query = Serializer::new(String::new());
        fields.iter().for_each(|(name, value)| add_to_query(&mut query, name, value));
        let query = query.finish();
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        Ok(Self { method, target, body: Value::Null })
    }
}

/// The fields of an action's input.
///
/// # Errors
///
/// It is no object.
pub(super) fn fields_of(action: &ActionDef, input: &impl Serialize) -> Result<Map<String, Value>, String> {
    match serde_json::to_value(input) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(format!("the input of the action {} is no object: {other}", action.name)),
        Err(error) => Err(format!("the input of the action {} cannot be sent: {error}", action.name)),
    }
}

/// The value in a path or a query; none for null, lists and objects.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Lists as repeated keys, objects as `a[b]`.
fn add_to_query(query: &mut Serializer<'_, String>, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Array(items) => items.iter().for_each(|item| add_to_query(query, name, item)),
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| add_to_query(query, &format!("{name}[{key}]"), value));
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            query.append_pair(name, &text_of(value).unwrap_or_default());
        }
    }
}

/// Decodes an answer. Values that are no objects travel as `result`, and `()` as an empty object.
pub(super) fn decode<T: DeserializeOwned + 'static>(answer: Value) -> Result<T, serde_json::Error> {
    if TypeId::of::<T>() == TypeId::of::<()>() {
        return serde_json::from_value(Value::Null);
    }
    let result = answer.get("result").cloned();
    serde_json::from_value(answer).or_else(|error| result.map_or(Err(error), serde_json::from_value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::prelude::*;

    #[input]
    struct Search {
        shop: String,
        tags: Vec<String>,
        max: Option<u32>,
        rest: String,
    }

    /// Reads.
    #[action(get = "/shops/{shop}/{*rest}")]
    async fn search(_ctx: Context, _: Search) -> Result<(), ActionError> {
        Ok(())
    }

    /// Writes.
    #[action(put = "/shops/{shop}")]
    async fn update(_ctx: Context, _: Search) -> Result<(), ActionError> {
        Ok(())
    }

    /// For sockets alone.
    #[action]
    async fn socket_only(_ctx: Context) -> Result<(), ActionError> {
        Ok(())
    }

    #[test]
    fn an_input_fills_path_query_and_body() {
        let input = json!({ "shop": "a b/c", "tags": ["x&y", "z"], "max": null, "rest": "p/q r", "in": { "a": 1 } });
        let request = ActionRequest::new(&<search as crate::Action>::DEF, "/api/", &input).unwrap();
        let target = "/api/shops/a%20b%2Fc/p/q%20r?in%5Ba%5D=1&tags=x%26y&tags=z";
        assert_eq!((request.method, &*request.target, request.body), (Method::GET, target, Value::Null));
        let request = ActionRequest::new(&<update as crate::Action>::DEF, "", &input).unwrap();
        assert_eq!((request.method, &*request.target), (Method::PUT, "/shops/a%20b%2Fc"));
        assert_eq!(request.body["tags"], json!(["x&y", "z"]));
        assert_eq!(request.body.get("shop"), None);
    }

    #[test]
    fn an_action_that_http_does_not_reach_names_the_remedy() {
        let problem = |action: ActionDef, input: Value| ActionRequest::new(&action, "/api", &input).unwrap_err();
        let unrouted = problem(<socket_only as crate::Action>::DEF, json!({}));
        assert!(unrouted.contains("socket_only") && unrouted.contains("client.socket()"), "{unrouted}");
        let unfilled = problem(<search as crate::Action>::DEF, json!({ "shop": "" }));
        assert!(unfilled.contains("needs a value for shop"), "{unfilled}");
    }

    #[test]
    fn answers_that_are_no_objects_are_unwrapped() {
        decode::<()>(json!({})).unwrap();
        assert_eq!(decode::<String>(json!({ "result": "text", "messageId": 1 })).unwrap(), "text");
        assert_eq!(decode::<Vec<u8>>(json!({ "result": [1] })).unwrap(), [1]);
        assert!(decode::<String>(json!({ "other": 1 })).is_err());
    }
}
