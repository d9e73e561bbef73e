//! The sockets of a user, wherever they are.

use phalanx::prelude::*;
use serde_json::{Value, json};

#[input]
pub(crate) struct Tell {
    user: String,
    message: Value,
}

/// Sends a message to each socket that is signed in as a user.
#[action(name = "tellUser", post = "/users/{user}/tell")]
pub(crate) async fn tell_user(ctx: Context, input: Tell) -> Result<(), ActionError> {
    let message = json!({ "context": "user", "message": input.message });
    ctx.connections().user(&input.user).send(&message).await
}

#[input]
pub(crate) struct User {
    user: String,
}

#[output]
pub(crate) struct Sockets {
    count: usize,
    ids: Vec<String>,
    missing: Vec<String>,
}

/// Lists the sockets of a user.
#[action(name = "userSockets", get = "/users/{user}/sockets")]
pub(crate) async fn user_sockets(ctx: Context, input: User) -> Result<Sockets, ActionError> {
    let listed = ctx.connections().user(&input.user).list().await?;
    let ids = listed.ids.iter().map(ToString::to_string).collect();
    Ok(Sockets { count: listed.count, ids, missing: listed.missing })
}
