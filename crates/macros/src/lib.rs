//! The attributes of Phalanx. What they write, an author could write by hand against the public types of `phalanx`.

mod action;
mod attr;
mod io;
mod remote;
mod signature;

use proc_macro::TokenStream;

/// Makes an action of an `async fn`.
///
/// The function stays as it is, callable from a unit test. Beside it comes a type of the same name, so that
/// `actions![greet]` and `ctx.call::<greet>(..)` know its input and output. The first parameter is the [`Context`], the
/// last the input, those in between are guards. The doc comment becomes the action's description.
///
/// | argument | meaning | default |
/// |---|---|---|
/// | `name = "user:create"` | its name on every transport | the function's name |
/// | `version = 2` | its version, from 1 | 1 |
/// | `get`, `get = "/users/{id}"`; also `post`, `put`, `patch`, `delete` | a route under the prefix of actions; several are allowed; without a path it is the name | none: no HTTP |
/// | `deadline = "5s"` | how long it may run (`ms`, `s`, `m`, `h`; `"0"` for no limit) | `general.action_deadline` |
/// | `block(websocket)` | sockets are told `forbidden` | |
/// | `internal` | no client reaches it | |
/// | `cancel_on_disconnect` | its future is dropped when its client leaves | it finishes |
///
/// ```
/// use phalanx::prelude::*;
///
/// #[input]
/// struct Greet {
///     #[validate(length(min = 1, max = 80))]
///     name: String,
/// }
///
/// #[output]
/// struct Greeting {
///     text: String,
/// }
///
/// /// Greets a person.
/// #[action(get = "/greet/{name}")]
/// async fn greet(_ctx: Context, input: Greet) -> Result<Greeting, ActionError> {
///     Ok(Greeting { text: format!("Hello, {}!", input.name) })
/// }
///
/// App::new("hello").actions(actions![greet]);
/// ```
///
/// An action without input takes the context alone, or `_: NoInput` after its guards. Its error is an `ActionError` or
/// one of the application's own that converts into it.
///
/// A file must not have the name of an action in it: both would be the type-level name `greet` of one module. So
/// actions live in `actions/<topic>.rs`. The input must be at least as visible as the function. Docs link the function
/// as ``[`greet()`]``.
///
/// [`Context`]: https://docs.rs/phalanx
#[proc_macro_attribute]
pub fn action(arguments: TokenStream, item: TokenStream) -> TokenStream {
    action::expand(arguments.into(), item.into()).unwrap_or_else(|wrong| wrong).into()
}

/// Makes a remote method of an `async fn`: it runs on a connection, wherever in the cluster that lives.
///
/// The shape is that of an action; `ctx.connection()` is the connection it runs on.
///
/// | argument | meaning | default |
/// |---|---|---|
/// | `name = "authorize"` | its name | the function's name |
/// | `deadline = "2s"` | how long a caller waits | `general.rpc_timeout` |
///
/// ```
/// use phalanx::prelude::*;
///
/// /// Remembers who a connection belongs to.
/// #[remote(deadline = "2s")]
/// async fn authorize(_ctx: Context, connection: Connection, _: NoInput) -> Result<String, ActionError> {
///     Ok(connection.fingerprint().to_owned())
/// }
///
/// App::new("hello").remotes(remotes![authorize]);
/// ```
#[proc_macro_attribute]
pub fn remote(arguments: TokenStream, item: TokenStream) -> TokenStream {
    remote::expand(arguments.into(), item.into()).unwrap_or_else(|wrong| wrong).into()
}

/// Writes the derives that the input of an action stands on: serde, schemars and validator, through the facade.
///
/// A field marked `#[secret]` never appears in a log; it has a name, and one alone. A field is named as it is on the wire: validators know it by that
/// name alone. An enum has no rules of its own: it is valid once it decodes. Within `#[serde(flatten)]`, untagged and
/// internally tagged types serde does not say which types it wants: there, text of a path, query or form stays text.
///
/// ```
/// use phalanx::prelude::*;
///
/// #[input]
/// struct SignUp {
///     #[validate(email)]
///     email: String,
///     #[secret]
///     #[validate(length(min = 8))]
///     password: String,
/// }
/// ```
#[proc_macro_attribute]
pub fn input(arguments: TokenStream, item: TokenStream) -> TokenStream {
    io::expand(io::Role::Input, arguments.into(), item.into()).unwrap_or_else(|wrong| wrong).into()
}

/// Writes the derives that the output of an action stands on: serde and schemars, through the facade.
///
/// ```
/// use phalanx::prelude::*;
///
/// #[output]
/// #[serde(rename_all = "camelCase")]
/// struct Count {
///     how_many: u32,
/// }
/// ```
#[proc_macro_attribute]
pub fn output(arguments: TokenStream, item: TokenStream) -> TokenStream {
    io::expand(io::Role::Output, arguments.into(), item.into()).unwrap_or_else(|wrong| wrong).into()
}
