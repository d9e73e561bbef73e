//! Rooms as seen by an application: create, inspect, publish.

use std::collections::BTreeMap;

use phalanx::prelude::*;
use serde_json::Value;

#[input]
pub(crate) struct NewRoom {
    name: String,
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct Created {
    name: String,
    did_create: bool,
}

/// Creates a room unless it exists.
#[action(name = "createChatRoom", post = "/rooms")]
pub(crate) async fn create_chat_room(ctx: Context, input: NewRoom) -> Result<Created, ActionError> {
    let did_create = match ctx.rooms().create(&input.name).await {
        Ok(()) => true,
        // The room exists. Other conflicts, such as `too_many_rooms`, have a code of their own.
        Err(error) if error.code() == ErrorKind::Conflict.code() => false,
        Err(error) => return Err(error),
    };
    Ok(Created { name: input.name, did_create })
}

#[input]
pub(crate) struct RoomPage {
    room: String,
    /// The `next` of the page before.
    after: Option<String>,
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoomStatus {
    room: String,
    members: BTreeMap<String, Member>,
    members_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct Member {
    id: String,
    joined_at: u64,
}

/// Lists the members of a room, page by page.
#[action(name = "roomStatus", get = "/rooms/{room}")]
pub(crate) async fn room_status(ctx: Context, input: RoomPage) -> Result<RoomStatus, ActionError> {
    let after = input.after.as_deref().map(str::parse).transpose()?;
    let page = ctx.rooms().members_page(&input.room, after.as_ref()).await?;
    let members = page.listed.into_iter().map(|member| {
        let id = member.id.to_string();
        (id.clone(), Member { id, joined_at: member.joined_at })
    });
    let next = page.next.map(|next| next.to_string());
    Ok(RoomStatus { room: input.room, members: members.collect(), members_count: page.count, next })
}

#[input]
pub(crate) struct Say {
    room: String,
    message: Value,
}

/// Publishes a message to a room, with the server as its sender.
#[action(name = "roomSay", post = "/rooms/{room}/say")]
pub(crate) async fn room_say(ctx: Context, input: Say) -> Result<(), ActionError> {
    ctx.rooms().say(&input.room, &input.message).await
}
