//! What the page and `curl` may ask.

use std::time::Duration;

use futures_util::future::join_all;
use phalanx::prelude::*;
use serde_json::json;

/// What a connection is called that has not said it.
pub(crate) fn name_of(connection: &Connection) -> String {
    let named = connection.get("name").and_then(|name| name.as_str().map(str::to_owned));
    named.unwrap_or_else(nobody)
}

#[input]
pub(crate) struct SetName {
    #[validate(length(min = 1, max = 32))]
    name: String,
}

/// Names the caller.
#[action(name = "setName")]
pub(crate) async fn set_name(_ctx: Context, me: Connection, input: SetName) -> Result<SetName, ActionError> {
    me.set("name", input.name.clone())?;
    Ok(input)
}

#[input]
pub(crate) struct Room {
    room: String,
}

#[output]
pub(crate) struct Members {
    members: Vec<Member>,
}

#[output]
pub(crate) struct Member {
    id: String,
    name: String,
}

/// Lists who is in a room, on whatever node they live; the first of them by name.
#[action(get = "/rooms/{room}/members")]
pub(crate) async fn members(ctx: Context, input: Room) -> Result<Members, ActionError> {
    let status = ctx.rooms().status(&input.room).await?;
    let listed = &status.members.listed;
    let mut names = Vec::new();
    for some in listed[..listed.len().min(NAMED)].chunks(ASKED_AT_ONCE) {
        names.extend(join_all(some.iter().map(|member| name_anywhere(&ctx, &member.id))).await);
    }
    names.resize_with(listed.len(), nobody);
    let members = listed.iter().zip(names).map(|(member, name)| Member { id: member.id.to_string(), name });
    Ok(Members { members: members.collect() })
}

/// Most members whose names are asked for, and how many at a time: each may cost a call to another node.
const NAMED: usize = 100;
const ASKED_AT_ONCE: usize = 20;

/// What a connection is called, wherever it lives; who does not say it soon is nobody known.
async fn name_anywhere(ctx: &Context, id: &ConnectionId) -> String {
    let soon = Some(Duration::from_secs(1));
    let name = ctx.connections().apply_within(id, "get", json!(["name"]), soon).await.unwrap_or_default();
    name.as_str().map_or_else(nobody, str::to_owned)
}

fn nobody() -> String {
    "someone".to_owned()
}

#[input]
pub(crate) struct Say {
    room: String,
    #[validate(length(min = 1, max = 1000))]
    text: String,
}

/// Says something in a room, as the server.
#[action(post = "/rooms/{room}/say")]
pub(crate) async fn say(ctx: Context, input: Say) -> Result<(), ActionError> {
    ctx.rooms().say(&input.room, &input.text).await
}
