//! The actions of the chat, for the page and for `curl`.

use std::time::Duration;

use futures_util::future::join_all;
use phalanx::prelude::*;
use serde_json::json;

/// The name of a connection of this node, or a placeholder if it has not set one.
pub(crate) fn name_of(connection: &Connection) -> String {
    let name = connection.get("name").and_then(|name| name.as_str().map(str::to_owned));
    name.unwrap_or_else(unnamed)
}

/// A name.
#[input]
#[derive(Debug)]
pub struct SetName {
    /// As others see it.
    #[validate(length(min = 1, max = 32))]
    pub name: String,
}

/// Sets the name of the calling connection.
#[action(name = "setName")]
pub async fn set_name(me: Connection, input: SetName) -> Result<SetName, ActionError> {
    me.set("name", input.name.clone())?;
    Ok(input)
}

/// A room.
#[input]
#[derive(Debug)]
pub struct Room {
    /// Its name.
    pub room: String,
}

/// The members of a room.
#[output]
#[derive(Debug)]
pub struct Members {
    /// Up to 100 of them.
    pub members: Vec<Member>,
    /// How many there are.
    pub count: usize,
}

/// A member of a room.
#[output]
#[derive(Debug)]
pub struct Member {
    /// The id of its connection.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// Lists up to 100 members of a room on all nodes, with their names, and counts all of them.
#[action(get = "/rooms/{room}/members")]
pub async fn members(ctx: Context, input: Room) -> Result<Members, ActionError> {
    let status = ctx.rooms().status(&input.room).await?;
    let listed = &status.members.listed;
    let mut names = Vec::new();
    for members in listed.chunks(CONCURRENT_CALLS) {
        names.extend(join_all(members.iter().map(|member| name_on_any_node(&ctx, &member.id))).await);
    }
    let members = listed.iter().zip(names).map(|(member, name)| Member { id: member.id.to_string(), name });
    Ok(Members { members: members.collect(), count: status.members.count })
}

/// The number of calls for names in flight at a time; each may go to another node.
const CONCURRENT_CALLS: usize = 20;

/// The name of a connection of any node, or a placeholder if its node does not answer within a second.
async fn name_on_any_node(ctx: &Context, id: &ConnectionId) -> String {
    let timeout = Some(Duration::from_secs(1));
    let name = ctx.connections().apply_within(id, "get", json!(["name"]), timeout).await.unwrap_or_default();
    name.as_str().map_or_else(unnamed, str::to_owned)
}

fn unnamed() -> String {
    "someone".to_owned()
}

/// A message of the server.
#[input]
#[derive(Debug)]
pub struct Say {
    /// The room.
    pub room: String,
    /// The text.
    #[validate(length(min = 1, max = 1000))]
    pub text: String,
}

/// Publishes a message to a room, with the server as its sender.
#[action(post = "/rooms/{room}/say")]
pub async fn say(ctx: Context, input: Say) -> Result<(), ActionError> {
    ctx.rooms().say(&input.room, &input.text).await
}
