//! How rooms end.

use phalanx_core::ErrorKind;
use phalanx_core::backend::RoomStore;

use crate::harness::{Fault, Noted, World, eventually, heard, unheard};

const FAREWELL: &str = "this room has been deleted";

#[tokio::test(start_paused = true)]
async fn the_end_of_a_room_takes_nobody_out_of_the_next_of_its_name() {
    let world = World::start(Noted::default()).await;
    let (old, new) = (world.member("old").await, world.connect("new").await);
    let rooms = world.node.rooms();
    world.backend.fails("publish", Fault::Away);
    assert_eq!(rooms.destroy("lobby").await.unwrap_err().kind(), ErrorKind::Unavailable);
    rooms.add("lobby").await.unwrap();
    rooms.join(&new, "lobby").await.unwrap();
    while !heard(&old).await.contains(FAREWELL) {}
    assert!(!old.is_in("lobby") && new.is_in("lobby"));
    rooms.say("lobby", "still here").await.unwrap();
    while !heard(&new).await.contains("still here") {}
    assert!(unheard(&old).is_empty());
    world.lists(&["new"]).await;
    rooms.join(&old, "lobby").await.unwrap();
    world.lists(&["new", "old"]).await;
}

#[tokio::test(start_paused = true)]
async fn members_that_could_not_be_told_of_the_end_are_told_later() {
    let world = World::start(Noted::default()).await;
    let member = world.member("a").await;
    for fault in [Fault::Away, Fault::AnswerLost] {
        world.backend.fails("publish", fault);
    }
    assert!(world.node.rooms().destroy("lobby").await.is_err());
    assert!(heard(&member).await.contains(FAREWELL));
    assert!(!member.is_in("lobby"));
    assert_eq!(world.noted.leaves(), ["a lobby destroyed"]);
}

#[tokio::test(start_paused = true)]
async fn to_destroy_a_room_may_be_repeated_until_it_is_done() {
    let world = World::start(Noted::default()).await;
    let member = world.member("a").await;
    let rooms = world.node.rooms();
    for fault in [Fault::Away, Fault::AnswerLost] {
        world.backend.fails("close", fault);
        assert_eq!(rooms.destroy("lobby").await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(member.is_in("lobby"));
    }
    assert!(!rooms.exists("lobby").await.unwrap());
    rooms.destroy("lobby").await.unwrap();
    assert!(heard(&member).await.contains(FAREWELL));
    assert_eq!(rooms.destroy("lobby").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_room_whose_destroyer_gave_up_is_destroyed_to_the_end() {
    let world = World::start(Noted::default()).await;
    let member = world.member("a").await;
    world.backend.fails("forget", Fault::NoAnswer);
    let rooms = world.node.rooms();
    tokio::select! {
        _ = rooms.destroy("lobby") => panic!("it has no answer"),
        () = world.backend.stuck.notified() => {}
    }
    while !heard(&member).await.contains(FAREWELL) {}
    eventually("it is forgotten", async || world.backend.rooms.close("lobby").await.unwrap().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_while_the_room_is_destroyed_leaves_once() {
    let world = World::start(Noted::holding("asked")).await;
    let member = world.member("a").await;
    let rooms = world.node.rooms();
    let leave = tokio::spawn({
        let (rooms, member) = (rooms.clone(), member.clone());
        async move { rooms.leave(&member, "lobby").await }
    });
    world.noted.asked.notified().await;
    rooms.destroy("lobby").await.unwrap();
    assert!(heard(&member).await.contains(FAREWELL));
    world.noted.goes_on.notify_one();
    leave.await.unwrap().unwrap();
    world.goes(&member).await;
    world.node.stop().await;
    assert_eq!(world.noted.leaves(), ["a lobby asked"]);
}
