use std::sync::Arc;

use phalanx_core::backend::RoomStore;
use phalanx_core::memory::MemoryRooms;
use phalanx_core::{ErrorKind, StartError};

use crate::harness::{Noted, World};

fn store() -> Arc<dyn RoomStore> {
    Arc::new(MemoryRooms::default())
}

phalanx_testkit::room_laws!(memory: (super::store(), ()));

#[tokio::test(start_paused = true)]
async fn beyond_the_most_rooms_there_are_too_many() {
    let world = World::start_with(Noted::default(), |config| config.rooms.max_rooms = 1).await.unwrap();
    let full = world.node.rooms().add("another").await.unwrap_err();
    assert_eq!((full.kind(), full.code()), (ErrorKind::Conflict, "too_many_rooms"));
    assert_eq!(world.node.rooms().add("lobby").await.unwrap_err().code(), "conflict");
}

#[tokio::test(start_paused = true)]
async fn a_node_does_not_start_without_a_room_that_it_starts_with() {
    let started = World::start_with(Noted::default(), |config| {
        config.rooms.start = vec!["lobby".to_owned(), "lobby".to_owned(), "another".to_owned()];
        config.rooms.max_rooms = 1;
    });
    let Err(StartError::Room { room, source }) = started.await.map(|_| ()) else { panic!("there is no place for it") };
    assert_eq!((room.as_str(), source.code()), ("another", "too_many_rooms"));
}
