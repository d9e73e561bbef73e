//! The attributes of Phalanx. Their expansions use only public items of `phalanx`: an author could write them by hand.

mod action;
mod attr;
mod io;
mod remote;
mod schedule;
mod signature;
mod task;

use proc_macro::TokenStream;

/// Defines an action by an `async fn`.
///
/// The function is left unchanged, so that a unit test can call it. The attribute adds a type of the same name, by which
/// `actions![greet]` and `ctx.call::<greet>(..)` find its input and output. The first parameter is the [`Context`], the
/// last one the input, and those in between are guards. The doc comment becomes the action's description.
///
/// | argument | meaning | default |
/// |---|---|---|
/// | `name = "user:create"` | its name on every transport | the function's name |
/// | `version = 2` | its version, from 1 | 1 |
/// | `get`, `get = "/users/{id}"`; also `post`, `put`, `patch`, `delete` | a route below `web.prefix`; several are allowed; the path defaults to the name | no HTTP route |
/// | `deadline = "5s"` | how long it may run (`ms`, `s`, `m`, `h`; `"0"` for no limit) | `general.action_deadline` |
/// | `block(websocket)` | over WebSocket it answers `forbidden` | |
/// | `cross_site` | pages of every other site may send requests to its routes, with the cookies of their user | `post`, `put`, `patch` and `delete` get 403 `cross_site` from pages that `web.cors_origins` does not list |
/// | `internal` | only other actions can call it | |
/// | `cancel_on_disconnect` | its future is dropped when its client disconnects | it finishes |
/// | `finish_stream` | its `Body::stream` has `general.grace` to come to its end while the node stops | the stream is ended between two chunks within `websocket.drain` |
/// | `max_body = "64KiB"` | most bytes of its HTTP body, files excluded (`B`, `KiB`, `MiB`, `GiB`); beyond, 413 | `web.max_body` |
/// | `max_upload = "1GiB"` | most bytes of an HTTP body with files; beyond, 413 | `web.max_upload` |
/// | `raw_body` | its HTTP body is not read into params: the guard `RawBody` has its bytes | |
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
/// An action without input takes only the context, or `_: NoInput` after its guards. Its error is an `ActionError` or a
/// type of the application that converts into one.
///
/// A file must not be named like an action in it: module and action would both define the type name `greet` (E0255). So
/// actions go to `actions.rs` or `actions/<topic>.rs`. The input must be at least as visible as the function. Docs link
/// the function as ``[`greet()`]``.
///
/// [`Context`]: https://docs.rs/phalanx
#[proc_macro_attribute]
pub fn action(arguments: TokenStream, item: TokenStream) -> TokenStream {
    action::expand(arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}

/// Defines a remote method by an `async fn`: it runs on a connection, on the node of the cluster that owns it.
///
/// The shape is that of an action; `ctx.connection()` is the connection it runs on. Without a `Connection` parameter it
/// can be called on nodes as well.
///
/// | argument | meaning | default |
/// |---|---|---|
/// | `name = "authorize"` | its name | the function's name |
/// | `deadline = "2s"` | how long a caller waits | `general.rpc_timeout` |
///
/// ```
/// use phalanx::prelude::*;
///
/// /// Returns the fingerprint of the browser behind a connection.
/// #[remote(deadline = "2s")]
/// async fn authorize(_ctx: Context, connection: Connection, _: NoInput) -> Result<String, ActionError> {
///     Ok(connection.fingerprint().to_owned())
/// }
///
/// App::new("hello").remotes(remotes![authorize]);
/// ```
#[proc_macro_attribute]
pub fn remote(arguments: TokenStream, item: TokenStream) -> TokenStream {
    remote::expand(arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}

/// Defines a task by an `async fn`: it runs as a job, at least once, on any node of the cluster.
///
/// The shape is that of an action, with a [`TaskContext`] as the first parameter. Its value is dropped unless it is `tracked`;
/// its error, a panic or the deadline fail the attempt.
///
/// | argument | meaning | default |
/// |---|---|---|
/// | `name = "mail:send"` | its name, which is stored with each job | the function's name |
/// | `queue = "low"` | the queue of its jobs | `default` |
/// | `attempts = 10` | most attempts; 1 for no retry | 5 |
/// | `backoff = "1s"` | the pause before the second attempt, which doubles with each (`ms`, `s`, `m`, `h`) | `1s` |
/// | `max_backoff = "10m"` | the longest pause; the same as `backoff` for pauses of one length | `10m` |
/// | `jitter = 0.2` | the share of a pause that is random, from 0.0 to 1.0 | 0.2 |
/// | `no_retry(not_found, conflict)` | kinds of errors after which it fails at once | none |
/// | `deadline = "5m"` | how long an attempt may run; `"0"` for no limit | `tasks.deadline`, 30 minutes |
/// | `blocking` | it blocks its thread, and gets one of its own | |
/// | `exclusive` | an attempt ends when its node cannot count on its lease, before another node may run the job | it goes on |
/// | `tracked` | the value that it returns is kept for a day, for `tasks().status(id)` | it is dropped |
/// | `unique`, `unique(account)`, `unique = key` | while a job has its key, no other with it is stored: the whole input, these fields of it, or the text of `fn key(input: &Mail) -> String` | an enqueue may name one |
/// | `unique_until = "start"` | a job has its key until an attempt begins | `end`: done, failed or deleted |
/// | `unique_scope = "queue"` | among all jobs of its queue | `task` |
/// | `unique_for = "24h"` | how long a job that does not end has its key, from when it is due; the deadline at least | `24h` |
/// | `on_failed = report` | `async fn report(ctx: TaskContext, failure: TaskFailure)` runs after a job failed for good | |
/// | `every = "10s"` | a job is enqueued at the multiples of this time since 1970, once in the cluster; `100ms` at least. Its input needs nothing: it decodes from `{}` | only what is enqueued |
/// | `cron = "30 2 * * *"` | the same at the times that a line of five fields names: minute, hour, day, month, day of the week; also `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly` | |
/// | `timezone = "Europe/Berlin"` | the time zone of the line | `UTC` |
/// | `overlap = "allow"` | it is enqueued also while the job of an earlier tick waits or runs | `skip` |
/// | `catch_up = "none"` | what becomes of ticks that came while no node ran: `last`, the newest is enqueued; `none`; `all`, a hundred at most, with `overlap = "allow"` | `last` |
///
/// ```
/// use phalanx::prelude::*;
///
/// #[input]
/// struct Mail {
///     #[validate(email)]
///     to: String,
/// }
///
/// /// Sends a mail.
/// #[task(queue = "mail", attempts = 10, no_retry(not_found))]
/// async fn send_mail(_ctx: TaskContext, input: Mail) -> Result<(), ActionError> {
///     println!("to {}", input.to);
///     Ok(())
/// }
///
/// /// Signs up.
/// #[action(post)]
/// async fn sign_up(ctx: Context, input: Mail) -> Result<(), ActionError> {
///     ctx.tasks().enqueue::<send_mail>(input).await?;
///     Ok(())
/// }
///
/// App::new("hello").actions(actions![sign_up]).tasks(tasks![send_mail]);
/// ```
///
/// [`TaskContext`]: https://docs.rs/phalanx
#[proc_macro_attribute]
pub fn task(arguments: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}

/// Adds the derives that the input of an action needs: serde, schemars and validator, through the facade.
///
/// A field marked `#[secret]` never appears in a log; it must have exactly one name. A field is named as on the wire,
/// because validators report it by its Rust name. An enum has no rules of its own: it is valid once it decodes. Within
/// `#[serde(flatten)]`, untagged and internally tagged types, serde does not say which type it expects: there, text of a
/// path, query or form is not converted to numbers or booleans.
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
    io::expand(io::Role::Input, arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}

/// Adds the derives that the output of an action needs: serde and schemars, through the facade.
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
    io::expand(io::Role::Output, arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}
