//! The guide: how to write an application, and how to run it.

#[doc = include_str!("getting_started.md")]
pub mod getting_started {}

#[doc = include_str!("actions.md")]
pub mod actions {}

#[doc = include_str!("websocket.md")]
#[doc = "\n## Samples\n"]
#[doc = "The frames of a node, byte for byte; a test compares them with the types that write them.\n"]
#[doc = "The first frame:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/welcome.json")]
#[doc = "```\n"]
#[doc = "The reply to an action:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/action-reply.json")]
#[doc = "```\n"]
#[doc = "The reply to `roomAdd` and `roomLeave`:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/verb-done.json")]
#[doc = "```\n"]
#[doc = "The reply to `say`:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/verb-published.json")]
#[doc = "```\n"]
#[doc = "The reply to `detailsView`:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/verb-details.json")]
#[doc = "```\n"]
#[doc = "The reply to `roomView`:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/verb-room.json")]
#[doc = include_str!("../../../core/src/protocol/samples/verb-room-page.json")]
#[doc = "```\n"]
#[doc = "The reply to `file`, for text and for other bytes:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/verb-file.json")]
#[doc = include_str!("../../../core/src/protocol/samples/verb-file-base64.json")]
#[doc = "```\n"]
#[doc = "An error, with and without a `messageId`:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/error-reply.json")]
#[doc = include_str!("../../../core/src/protocol/samples/error-without-id.json")]
#[doc = "```\n"]
#[doc = "A message of a room:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/room-message.json")]
#[doc = "```\n"]
#[doc = "A member joined or left a room with presence:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/presence-join.json")]
#[doc = include_str!("../../../core/src/protocol/samples/presence-leave.json")]
#[doc = "```\n"]
#[doc = "Several members left, because their node died, or joined, because it came back; two to 200 in a frame:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/presence-leaves.json")]
#[doc = "```\n"]
#[doc = "Messages of a room may have been missed:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/gap.json")]
#[doc = "```\n"]
#[doc = "A file that the application sends:\n"]
#[doc = "```json"]
#[doc = include_str!("../../../core/src/protocol/samples/file-push.json")]
#[doc = "```\n"]
pub mod websocket {}

#[doc = include_str!("rooms.md")]
pub mod rooms {}

#[doc = include_str!("sharing.md")]
pub mod sharing {}

#[doc = include_str!("tasks.md")]
pub mod tasks {}

#[doc = include_str!("cluster.md")]
pub mod cluster {}

#[doc = include_str!("operating.md")]
pub mod operating {}

#[doc = include_str!("command_line.md")]
#[doc = "The documents; a test compares their keys with what the commands print.\n"]
#[doc = "`routes`, `nodes`, `connections`, `rooms`:\n"]
#[doc = "```json"]
#[doc = include_str!("../command/samples/routes.json")]
#[doc = include_str!("../command/samples/nodes.json")]
#[doc = include_str!("../command/samples/connections.json")]
#[doc = include_str!("../command/samples/rooms.json")]
#[doc = "```\n"]
#[doc = "`doctor`:\n"]
#[doc = "```json"]
#[doc = include_str!("../command/samples/doctor.json")]
#[doc = "```\n"]
#[doc = "`config --origins`:\n"]
#[doc = "```json"]
#[doc = include_str!("../command/samples/origins.json")]
#[doc = "```\n"]
pub mod command_line {}

#[doc = include_str!("actionhero.md")]
pub mod actionhero {}
