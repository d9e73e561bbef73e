//! What the page and `curl` may ask.

use phalanx::prelude::*;

/// What a connection is called that has not said it.
pub(crate) fn name_of(connection: &Connection) -> String {
    let named = connection.get("name").and_then(|name| name.as_str().map(str::to_owned));
    named.unwrap_or_else(|| "someone".to_owned())
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

/// Lists who is in a room.
#[action(get = "/rooms/{room}/members")]
pub(crate) async fn members(ctx: Context, input: Room) -> Result<Members, ActionError> {
    let status = ctx.rooms().status(&input.room).await?;
    let member = |id: &ConnectionId| Member {
        id: id.to_string(),
        name: ctx.connections().local(id).map_or_else(|| "someone".to_owned(), |connection| name_of(&connection)),
    };
    Ok(Members { members: status.members.listed.iter().map(|listed| member(&listed.id)).collect() })
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
