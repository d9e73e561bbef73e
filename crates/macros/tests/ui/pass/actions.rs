//! Every shape that a function may have, and the definition it expands to.

use std::time::Duration;

use phalanx::extend::Deadline;
use phalanx::extend::action::{BodyRules, Exposure, Method, OnDisconnect, Route};
use phalanx::prelude::*;
use phalanx::{Action, ActionDef, Remote};

struct Users;

/// A guard of the application's own.
struct SignedIn {
    name: String,
}

impl FromContext for SignedIn {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        Ok(Self { name: ctx.id().to_string() })
    }
}

enum Refusal {
    Rude,
}

impl From<Refusal> for ActionError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Rude => Self::new(ErrorKind::Forbidden, "rude", "be polite"),
        }
    }
}

#[input]
struct Greet {
    #[validate(length(min = 1))]
    name: String,
}

#[output]
struct Greeting {
    text: String,
}

/// Greets a person.
///
/// Kindly.
#[action(get = "/greet/{name}", post, deadline = "1500ms", max_body = "2KiB", max_upload = "3GiB")]
async fn greet(_ctx: Context, input: Greet) -> Result<Greeting, ActionError> {
    Ok(Greeting { text: input.name })
}

#[action(
    name = "user:greet",
    version = 2,
    deadline = "0",
    block(websocket),
    cancel_on_disconnect,
    finish_stream,
    cross_site,
    get = "/u/{*rest}",
    put = "/u"
)]
async fn greet_user(
    _ctx: Context,
    _users: State<Users>,
    me: SignedIn,
    input: Greet,
) -> Result<Reply<Greeting>, Refusal> {
    if input.name.is_empty() { Err(Refusal::Rude) } else { Ok(Reply::new(Greeting { text: me.name })) }
}

#[action(post = "/hook", raw_body)]
async fn hook(_ctx: Context, body: RawBody, _: NoInput) -> Result<usize, ActionError> {
    Ok(body.len())
}

#[action(internal)]
async fn export(_ctx: Context, _users: State<Users>, _: NoInput) -> Result<Body, ActionError> {
    Ok(Body::bytes("text/csv", "name"))
}

#[action]
async fn ping(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

/// Neither context nor input.
#[action]
async fn tick() -> Result<(), ActionError> {
    Ok(())
}

/// Guards alone, of the server and of the application.
#[action]
async fn who(_users: State<Users>, me: SignedIn) -> Result<String, ActionError> {
    Ok(me.name)
}

/// Guards and an input.
#[action]
async fn welcome(_users: State<Users>, me: Option<SignedIn>, input: Greet) -> Result<Greeting, ActionError> {
    Ok(Greeting { text: me.map_or(input.name, |me| me.name) })
}

/// An input alone, which is a thing of several types.
#[action]
async fn count(input: Page<Greet>) -> Result<usize, ActionError> {
    Ok(input.rows.len())
}

#[input]
struct Page<T> {
    rows: Vec<T>,
}

/// The context among the guards.
#[action]
async fn late(_users: State<Users>, ctx: Context, _: NoInput) -> Result<String, ActionError> {
    Ok(ctx.name().to_owned())
}

/// A guard that comes after the body, as the last parameter.
#[action(post, raw_body)]
async fn signed(_users: State<Users>, body: RawBody) -> Result<usize, ActionError> {
    Ok(body.len())
}

/// A remote method on a connection, without the context.
#[remote]
async fn kick(connection: Connection) -> Result<(), ActionError> {
    connection.close(CloseReason::NotAllowed);
    Ok(())
}

#[cfg(any())]
#[action]
async fn switched_off(_ctx: Context) -> Result<Missing, ActionError> {
    Err(ActionError::not_found("nothing here"))
}

/// Lets a connection in.
#[remote(name = "authorize", deadline = "2s")]
async fn let_in(_ctx: Context, connection: Connection, _: NoInput) -> Result<String, ActionError> {
    Ok(connection.fingerprint().to_owned())
}

#[test]
fn a_definition_has_the_values_of_its_attribute() {
    let [def] = actions![greet];
    assert_eq!((def.name, def.version), ("greet", 1));
    assert_eq!(def.description, "Greets a person.\n\nKindly.");
    let routes = [Route { method: Method::Get, path: "/greet/{name}" }, Route { method: Method::Post, path: "" }];
    assert_eq!(def.routes, routes);
    assert_eq!(def.deadline, Deadline::After(Duration::from_millis(1500)));
    assert_eq!(def.body, BodyRules { max_body: Some(2048), max_upload: Some(3 << 30), is_raw: false });
    assert_eq!(hook::DEF.body, BodyRules { is_raw: true, ..BodyRules::DEFAULT });
    assert_eq!((def.exposure, def.on_disconnect), (Exposure::Public, OnDisconnect::Finish));

    let [def] = actions![greet_user];
    assert_eq!((def.name, def.version), ("user:greet", 2));
    let routes = [Route { method: Method::Get, path: "/u/{*rest}" }, Route { method: Method::Put, path: "/u" }];
    assert_eq!(def.routes, routes);
    assert!(def.cross_site);
    assert_eq!(def.deadline, Deadline::Never);
    assert_eq!((def.exposure, def.on_disconnect), (Exposure::HttpOnly, OnDisconnect::Cancel));
}

#[test]
fn omitted_arguments_have_their_defaults() {
    let [def] = actions![ping];
    assert_eq!((def.name, def.version, def.description), ("ping", 1, ""));
    assert!(def.routes.is_empty());
    assert_eq!((def.deadline, def.body), (Deadline::Default, BodyRules::DEFAULT));
    assert_eq!((def.exposure, def.on_disconnect), (Exposure::Public, OnDisconnect::Finish));
    assert_eq!((export::DEF.exposure, def.cross_site), (Exposure::Internal, false));
}

#[test]
fn a_definition_carries_the_schemas_of_its_types() {
    fn properties(schema: &phalanx::schemars::Schema) -> Vec<String> {
        let properties = schema.get("properties").and_then(|all| all.as_object());
        properties.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }
    fn check(def: &ActionDef, input: &[&str], output: &[&str]) {
        assert_eq!(properties(&(def.input)()), input, "{def:?}");
        assert_eq!(properties(&(def.output)()), output, "{def:?}");
    }
    check(&greet::DEF, &["name"], &["text"]);
    check(&greet_user::DEF, &["name"], &["text"]);
    check(&ping::DEF, &[], &[]);
    check(&export::DEF, &[], &[]);
    check(&tick::DEF, &[], &[]);
    check(&who::DEF, &[], &[]);
    check(&welcome::DEF, &["name"], &["text"]);
    check(&count::DEF, &["rows"], &[]);
    check(&late::DEF, &[], &[]);
    check(&signed::DEF, &[], &[]);
}

#[test]
fn the_last_parameter_is_the_input_or_a_guard() {
    fn inputs<A: Action<Input = I>, I>() {}
    inputs::<tick, NoInput>();
    inputs::<who, NoInput>();
    inputs::<welcome, Greet>();
    inputs::<count, Page<Greet>>();
    inputs::<late, NoInput>();
    let [def] = remotes![kick];
    assert_eq!((def.name, <kick as Remote>::DEF.name), ("kick", "kick"));
}

#[test]
fn a_remote_method_is_defined_like_an_action() {
    let [def] = remotes![let_in];
    assert_eq!((def.name, def.description), ("authorize", "Lets a connection in."));
    assert_eq!(def.deadline, Deadline::After(Duration::from_secs(2)));
    assert_eq!(<let_in as Remote>::DEF.name, def.name);
}
