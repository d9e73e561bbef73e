use std::sync::Arc;

use phalanx_core::backend::RoomStore;
use phalanx_core::memory::MemoryRooms;
use phalanx_core::{ErrorKind, StartError};

use crate::harness::{Harness, LeaveLog};

fn store() -> Arc<dyn RoomStore> {
    Arc::new(MemoryRooms::default())
}

phalanx_testkit::room_laws!(memory: (super::store(), ()));

#[tokio::test(start_paused = true)]
async fn rooms_beyond_the_maximum_are_refused() {
    let harness = Harness::start_with(LeaveLog::default(), |config| config.rooms.max_rooms = 1).await.unwrap();
    let full = harness.node.rooms().create("another").await.unwrap_err();
    assert_eq!((full.kind(), full.code()), (ErrorKind::Conflict, "too_many_rooms"));
    assert_eq!(harness.node.rooms().create("lobby").await.unwrap_err().code(), "conflict");
}

#[tokio::test(start_paused = true)]
async fn a_node_does_not_start_when_a_start_room_cannot_be_created() {
    let started = Harness::start_with(LeaveLog::default(), |config| {
        config.rooms.start = vec!["lobby".to_owned(), "lobby".to_owned(), "another".to_owned()];
        config.rooms.max_rooms = 1;
    });
    let Err(StartError::Room { room, source }) = started.await.map(|_| ()) else {
        panic!("the limit leaves no room for it")
    };
    assert_eq!((room.as_str(), source.code()), ("another", "too_many_rooms"));
}
