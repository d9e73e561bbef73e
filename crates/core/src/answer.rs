//! The answer of an action: a value, a value with status and headers, or a body of any media type.

use std::any::TypeId;
use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cookie::Cookie;
use crate::error::ActionError;
use crate::future::BoxFuture;

/// The result of a call: its answer or its error.
pub type Outcome = Result<Answer, ActionError>;

/// The answer of a call, encoded once.
#[derive(Debug)]
pub struct Answer {
    /// The status, for transports that have one.
    pub status: StatusCode,
    /// Headers, for transports that have them.
    pub headers: HeaderMap,
    /// The content.
    pub content: Content,
    /// Cookies of a [`Reply`], which the end of the call turns into headers.
    pub(crate) cookies: Vec<Cookie>,
    shape: Shape,
}

/// The kind of value that was encoded. Every answer travels as an object; [`Answer::decode`] undoes the wrapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// An object, as it is.
    Object,
    /// Any other value, as the field `result`.
    Result,
    /// `()`, as an empty object.
    Unit,
}

/// An answer's content.
#[derive(Debug)]
pub enum Content {
    /// One encoded JSON object.
    Json(Bytes),
    /// A body that only HTTP can carry.
    Body(Body),
}

impl Answer {
    /// Encodes `value`. Anything but an object travels as the field `result`, `()` as an empty object.
    ///
    /// # Errors
    ///
    /// `internal` if the value cannot be serialized.
    pub fn json<T: Serialize + 'static>(value: &T) -> Outcome {
        if TypeId::of::<T>() == TypeId::of::<()>() {
            return Ok(Self { shape: Shape::Unit, ..Self::object(Bytes::from_static(b"{}")) });
        }
        let mut text = Vec::with_capacity(128);
        serde_json::to_writer(&mut text, value).map_err(ActionError::internal)?;
        if text.first() == Some(&b'{') {
            return Ok(Self::object(text.into()));
        }
        Ok(Self::result(text))
    }

    /// Takes JSON that is already encoded. Anything but an object travels as the field `result`.
    ///
    /// # Errors
    ///
    /// `internal` if it is not JSON.
    pub fn encoded(json: Bytes) -> Outcome {
        let json = json.slice_ref(json.trim_ascii());
        serde_json::from_slice::<serde::de::IgnoredAny>(&json).map_err(ActionError::internal)?;
        match json.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")) {
            // Transports splice their own fields onto the last one. They recognize an object without fields by its
            // text, `{}`.
            Some(fields) if fields.trim_ascii().is_empty() => Ok(Self::object(Bytes::from_static(b"{}"))),
            Some(_) => Ok(Self::object(json)),
            None => Ok(Self::result(json.into())),
        }
    }

    /// The cookies of a [`Reply`], for a layer: the end of the call checks them, and sets them after those of
    /// [`Context::set_cookie`](crate::Context::set_cookie).
    pub fn cookies(&self) -> &[Cookie] {
        &self.cookies
    }

    fn object(object: Bytes) -> Self {
        Self::of(Content::Json(object))
    }

    fn of(content: Content) -> Self {
        let (status, headers) = (StatusCode::OK, HeaderMap::new());
        Self { status, headers, content, cookies: Vec::new(), shape: Shape::Object }
    }

    fn result(mut value: Vec<u8>) -> Self {
        value.splice(..0, *RESULT);
        value.push(b'}');
        Self { shape: Shape::Result, ..Self::object(value.into()) }
    }

    /// Decodes the value that the action returned, without the wrapping object, for a layer or a calling action.
    ///
    /// # Errors
    ///
    /// `internal` if the answer is a [`Body`] or not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ActionError> {
        match &self.content {
            Content::Json(text) => {
                let text = match self.shape {
                    Shape::Object => &text[..],
                    // A layer may have replaced the object.
                    Shape::Result => text.strip_prefix(RESULT).and_then(|text| text.strip_suffix(b"}")).unwrap_or(text),
                    Shape::Unit if text == "{}" => b"null",
                    Shape::Unit => text,
                };
                serde_json::from_slice(text).map_err(ActionError::internal)
            }
            Content::Body(_) => Err(ActionError::internal("the answer is a body, not JSON")),
        }
    }
}

/// The prefix of a value that is not an object.
const RESULT: &[u8; 10] = b"{\"result\":";

/// The types that an action can return: anything that serializes, a [`Reply`], or a [`Body`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the answer of an action",
    label = "put `#[output]` on this type",
    note = "or derive `serde::Serialize` and `schemars::JsonSchema` yourself"
)]
pub trait IntoAnswer: Sized {
    /// Encodes the answer.
    ///
    /// # Errors
    ///
    /// `internal` if it cannot be encoded.
    fn into_answer(self) -> Outcome;

    /// The schema of the answer, for checks at boot and for the OpenAPI document.
    fn schema() -> Schema;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + JsonSchema + 'static> IntoAnswer for T {
    fn into_answer(self) -> Outcome {
        Answer::json(&self)
    }

    fn schema() -> Schema {
        let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
        SchemaGenerator::new(settings).into_root_schema_for::<T>()
    }
}

/// An answer with a status, headers or cookies; transports without them ignore them.
///
/// ```
/// use phalanx_core::http::header::{HeaderValue, LOCATION};
/// use phalanx_core::http::StatusCode;
/// use phalanx_core::{ActionError, Cookie, Reply};
/// # use phalanx_core::IntoAnswer;
/// # use schemars::JsonSchema;
/// # use serde::Serialize;
///
/// // `#[output]` derives these.
/// #[derive(Serialize, JsonSchema)]
/// struct Post {
///     id: u64,
/// }
///
/// async fn post_create() -> Result<Reply<Post>, ActionError> {
///     let reply = Reply::new(Post { id: 7 })
///         .status(StatusCode::CREATED)
///         .header(LOCATION, HeaderValue::from_static("/api/posts/7"))
///         .cookie(Cookie::removal("draft"));
///     Ok(reply)
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ActionError> {
///
/// let answer = post_create().await?.into_answer()?;
/// assert_eq!(answer.status, StatusCode::CREATED);
/// assert_eq!(answer.headers[LOCATION], "/api/posts/7");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Reply<T> {
    value: T,
    status: StatusCode,
    headers: HeaderMap,
    cookies: Vec<Cookie>,
}

impl<T> Reply<T> {
    /// Makes an answer of `value` with status 200.
    pub fn new(value: T) -> Self {
        Self { value, status: StatusCode::OK, headers: HeaderMap::new(), cookies: Vec::new() }
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets a header, replacing an earlier value.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets a cookie with this answer. One that cannot be set makes it `internal`. What is to be set whatever is answered,
    /// an error too, is set by [`Context::set_cookie`](crate::Context::set_cookie).
    #[must_use]
    pub fn cookie(mut self, cookie: Cookie) -> Self {
        self.cookies.push(cookie);
        self
    }
}

impl<T: IntoAnswer> IntoAnswer for Reply<T> {
    fn into_answer(self) -> Outcome {
        let mut answer = self.value.into_answer()?;
        answer.status = self.status;
        answer.headers.extend(self.headers);
        answer.cookies.extend(self.cookies);
        Ok(answer)
    }

    fn schema() -> Schema {
        T::schema()
    }
}

/// A body of any media type, for HTTP only: bytes, a file, or a stream.
///
/// ```
/// use phalanx_core::{ActionError, Body};
/// # use phalanx_core::{Content, IntoAnswer};
///
/// async fn report() -> Result<Body, ActionError> {
///     Ok(Body::bytes("text/csv", "id,name\n7,ann\n"))
/// }
///
/// async fn manual() -> Result<Body, ActionError> {
///     // The media type follows from the file's name.
///     Ok(Body::file("documents/manual.pdf"))
/// }
///
/// async fn countdown() -> Result<Body, ActionError> {
///     let lines = ["3\n", "2\n", "1\n"].map(|line| Ok(line.into()));
///     Ok(Body::stream("text/plain", futures_util::stream::iter(lines)))
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ActionError> {
/// # for body in [report().await?, manual().await?, countdown().await?] {
/// #     assert!(matches!(body.into_answer()?.content, Content::Body(_)));
/// # }
/// # Ok(())
/// # }
/// ```
pub struct Body {
    /// The media type; `None` for a file: derived from the file's name.
    pub content_type: Option<HeaderValue>,
    /// The source of the bytes.
    pub source: BodySource,
}

/// The source of a [`Body`].
#[expect(missing_debug_implementations, reason = "a stream has nothing to print; `Body` prints the rest")]
pub enum BodySource {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, sent with `ETag`, `Last-Modified` and ranges.
    File(PathBuf),
    /// A stream. An error resets the connection, so that no client takes a part for the whole; it is logged, and the
    /// call counts as `internal`.
    Stream(BodyStream),
}

/// The chunks of a streamed body.
pub type BodyStream = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, ActionError>> + Send>>;

impl Body {
    /// Makes a body of `bytes`.
    pub fn bytes(content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self { content_type: Some(HeaderValue::from_static(content_type)), source: BodySource::Bytes(bytes.into()) }
    }

    /// Makes a body of a file. The path is not checked: no part of it may come from a client.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { content_type: None, source: BodySource::File(path.into()) }
    }

    /// Makes a body of a stream, which is sent chunk by chunk.
    pub fn stream(
        content_type: &'static str,
        stream: impl Stream<Item = Result<Bytes, ActionError>> + Send + 'static,
    ) -> Self {
        let content_type = Some(HeaderValue::from_static(content_type));
        Self { content_type, source: BodySource::Stream(stream.boxed()) }
    }

    /// Answers it as a file to save, under this name, which may be one that a client chose. What others have uploaded is
    /// answered so, and not shown: a page among it would be one of this site. A longer name than 255 bytes, which few file
    /// systems hold, is cut.
    ///
    /// ```
    /// use phalanx_core::Body;
    ///
    /// let answer = Body::file("uploads/7").attachment("Übersicht.pdf");
    /// # use phalanx_core::IntoAnswer;
    /// # let answer = answer.into_answer()?;
    /// let expected = "attachment; filename=\"_bersicht.pdf\"; filename*=UTF-8''%C3%9Cbersicht.pdf";
    /// assert_eq!(answer.headers["content-disposition"], expected);
    /// # Ok::<(), phalanx_core::ActionError>(())
    /// ```
    pub fn attachment(self, name: &str) -> Reply<Self> {
        let end = (0..=name.len().min(LONGEST_NAME)).rev().find(|end| name.is_char_boundary(*end));
        let name = &name[..end.unwrap_or_default()];
        let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_' | ' ');
        let fallback: String = name.chars().map(|it| if is_plain(it) { it } else { '_' }).collect();
        let mut value = format!("attachment; filename=\"{fallback}\"");
        if fallback != name {
            value.push_str("; filename*=UTF-8''");
            for byte in name.bytes() {
                match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => value.push(byte.into()),
                    _ => value.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        let value = HeaderValue::try_from(value).expect("it is ASCII without control characters");
        Reply::new(self).header(CONTENT_DISPOSITION, value).header(X_CONTENT_TYPE_OPTIONS, NOSNIFF)
    }
}

/// The longest name of a file to save, in bytes: proxies and clients refuse long headers.
const LONGEST_NAME: usize = 255;

/// Keeps browsers from guessing another media type.
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            BodySource::Bytes(bytes) => write!(f, "Body::bytes({})", bytes.len()),
            BodySource::File(path) => write!(f, "Body::file({})", path.display()),
            BodySource::Stream(_) => f.write_str("Body::stream"),
        }
    }
}

impl IntoAnswer for Body {
    fn into_answer(self) -> Outcome {
        Ok(Answer::of(Content::Body(self)))
    }

    fn schema() -> Schema {
        schemars::json_schema!({ "type": "string", "format": "binary" })
    }
}

/// Boxes the future of a call, for the code that `#[action]` generates.
pub fn answering<F>(future: F) -> BoxFuture<'static, Outcome>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    Box::pin(future)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_value_travels_as_an_object_and_decodes_to_itself() {
        fn check<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug + 'static>(value: T, travels: &str) {
            let answer = Answer::json(&value).expect("it is JSON");
            assert!(matches!(&answer.content, Content::Json(text) if text == travels), "{answer:?}");
            assert_eq!(answer.decode::<T>().expect("it decodes"), value);
        }
        check((), "{}");
        check(true, r#"{"result":true}"#);
        check(vec![1, 2], r#"{"result":[1,2]}"#);
        check("a}".to_owned(), r#"{"result":"a}"}"#);
        check::<Value>(json!({ "result": 1 }), r#"{"result":1}"#);
        check::<Value>(json!({}), "{}");
        check::<Option<u8>>(None, r#"{"result":null}"#);
    }

    #[test]
    fn a_layer_sees_the_cookies_of_a_reply() {
        let reply = Reply::new(()).cookie(Cookie::new("a", "1")).cookie(Cookie::removal("b"));
        let answer = reply.into_answer().expect("it is encoded");
        assert_eq!(answer.cookies().iter().map(Cookie::name).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn encoded_json_travels_as_an_object_and_anything_else_is_refused() {
        let check = |text: &'static str, travels: &str| {
            let answer = Answer::encoded(Bytes::from_static(text.as_bytes())).expect("it is JSON");
            assert!(matches!(&answer.content, Content::Json(text) if text == travels), "{answer:?}");
            assert_eq!(answer.decode::<Value>().expect("it decodes"), serde_json::from_str::<Value>(text).unwrap());
        };
        check(" {\"a\":1}\n", r#"{"a":1}"#);
        check("{ \n }", "{}");
        check(" [1,2] ", r#"{"result":[1,2]}"#);
        check("5", r#"{"result":5}"#);
        for broken in ["", "{", "{} {}", "{\"a\":1}}", "a"] {
            let refused = Answer::encoded(Bytes::from_static(broken.as_bytes())).expect_err("it is not JSON");
            assert_eq!(refused.code(), "internal");
        }
    }

    #[test]
    fn a_long_name_of_a_file_is_cut_where_a_character_ends() {
        let answer = Body::file("7").attachment(&"ü".repeat(200)).into_answer().unwrap();
        let expected =
            format!("attachment; filename=\"{}\"; filename*=UTF-8''{}", "_".repeat(127), "%C3%BC".repeat(127));
        assert_eq!(answer.headers[CONTENT_DISPOSITION], expected);
    }
}
