//! Who is listed, and what is told, when calls are dropped, answers are lost and the backend is away.

use phalanx_core::ErrorKind;
use phalanx_core::backend::{Member, Membership, RoomStore};

use crate::harness::{Fault, Noted, World, eventually, heard, unheard};

async fn joined_at(world: &World, id: &str) -> Option<u64> {
    let members = world.backend.rooms.members("lobby", 100).await.unwrap().unwrap_or_default();
    members.listed.iter().find(|member| member.id.as_str() == id).map(|member| member.joined_at)
}

/// Waits until what was to be made good is.
async fn mended(world: &World, other: &str) {
    world.backend.fails("leave", Fault::Away);
    let other = world.member(other).await;
    world.node.rooms().leave(&other, "lobby").await.unwrap();
    eventually("the list is right", async || joined_at(world, other.id().as_str()).await.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn who_gave_up_joining_is_listed_no_more() {
    let world = World::start(Noted::default()).await;
    let (watcher, member) = (world.member("watcher").await, world.connect("a").await);
    world.backend.fails("join", Fault::NoAnswer);
    let rooms = world.node.rooms();
    tokio::select! {
        _ = rooms.join(&member, "lobby") => panic!("it has no answer"),
        () = world.backend.stuck.notified() => {}
    }
    assert_eq!(world.listed().await, ["a", "watcher"]);
    world.lists(&["watcher"]).await;
    assert!(!member.is_in("lobby"));
    assert!(unheard(&watcher).is_empty(), "nobody came, so nobody left");
}

#[tokio::test(start_paused = true)]
async fn a_join_whose_answer_was_lost_may_be_tried_again_at_once() {
    let world = World::start(Noted::default()).await;
    let member = world.connect("a").await;
    let rooms = world.node.rooms();
    world.backend.fails("join", Fault::AnswerLost);
    assert_eq!(rooms.join(&member, "lobby").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let lost = joined_at(&world, "a").await.unwrap();
    rooms.join(&member, "lobby").await.unwrap();
    let again = joined_at(&world, "a").await.unwrap();
    assert!(again > lost, "its place is told from the lost one, within a millisecond too");
    mended(&world, "b").await;
    assert_eq!(joined_at(&world, "a").await, Some(again));
    assert!(member.is_in("lobby") && world.noted.leaves() == ["b lobby asked"]);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_out_at_once_and_off_the_list_once_the_backend_answers() {
    let world = World::start(Noted::default()).await;
    let watcher = world.member("watcher").await;
    let rooms = world.node.rooms();
    for (fault, id) in [(Fault::Away, "a"), (Fault::AnswerLost, "b")] {
        let member = world.member(id).await;
        while !heard(&watcher).await.contains(&format!("\"join\",\"room\":\"lobby\",\"member\":\"{id}\"")) {}
        world.backend.fails("leave", fault);
        rooms.leave(&member, "lobby").await.unwrap();
        assert!(!member.is_in("lobby"));
        world.lists(&["watcher"]).await;
        assert!(heard(&watcher).await.contains("\"leave\""));
        assert!(unheard(&member).is_empty(), "it hears the room no more");
    }
    assert_eq!(world.noted.leaves(), ["a lobby asked", "b lobby asked"]);
}

#[tokio::test(start_paused = true)]
async fn who_gave_up_leaving_has_left() {
    let world = World::start(Noted::default()).await;
    let (watcher, member) = (world.member("watcher").await, world.member("a").await);
    while !heard(&watcher).await.contains("\"a\"") {}
    let rooms = world.node.rooms();
    for step in ["leave", "publish"] {
        world.backend.fails(step, Fault::NoAnswer);
        tokio::select! {
            _ = rooms.leave(&member, "lobby") => panic!("it has no answer"),
            () = world.backend.stuck.notified() => {}
        }
        assert!(!member.is_in("lobby"));
        world.lists(&["watcher"]).await;
        assert!(heard(&watcher).await.contains("\"leave\""));
        rooms.join(&member, "lobby").await.unwrap();
        assert!(heard(&watcher).await.contains("\"join\""));
    }
    assert!(unheard(&watcher).is_empty(), "each is told once");
    world.lists(&["a", "watcher"]).await;
}

#[tokio::test(start_paused = true)]
async fn whose_removal_is_given_up_leaves_all_the_same_and_its_hooks_are_asked() {
    let world = World::start(Noted::default()).await;
    let (watcher, member) = (world.member("watcher").await, world.member("a").await);
    while !heard(&watcher).await.contains("\"a\"") {}
    world.backend.fails("leave", Fault::NoAnswer);
    tokio::select! {
        () = world.goes(&member) => panic!("it has no answer"),
        () = world.backend.stuck.notified() => {}
    }
    assert!(heard(&watcher).await.contains("\"leave\""));
    eventually("it is gone", async || world.node.connections().local(member.id()).is_none()).await;
    assert!(!member.is_in("lobby") && world.noted.leaves().contains(&"a lobby ended".to_owned()));
    assert!(unheard(&watcher).is_empty(), "it is told once");
}

#[tokio::test(start_paused = true)]
async fn a_leave_that_a_reaper_told_is_not_told_again() {
    let world = World::start(Noted::default()).await;
    let (watcher, member, other) = (world.member("watcher").await, world.member("a").await, world.member("b").await);
    let (id, joined_at) = (member.id().clone(), joined_at(&world, "a").await.unwrap());
    world.backend.fails("leave", Fault::Away);
    world.backend.fails("leave", Fault::NoAnswer);
    world.node.rooms().leave(&other, "lobby").await.unwrap();
    world.backend.stuck.notified().await; // it makes things good, and may have been found dead before
    let place = Member { id, joined_at };
    world.backend.rooms.leave("lobby", &place, world.node.generation()).await.unwrap();
    world.goes(&member).await;
    assert_eq!(world.noted.leaves(), ["b lobby asked"]);
    world.node.rooms().say("lobby", "nothing more").await.unwrap();
    let mut frame = heard(&watcher).await;
    while !frame.contains("nothing more") {
        assert!(!frame.contains("\"leave\""), "{frame}");
        frame = heard(&watcher).await;
    }
    world.goes(&watcher).await;
    assert_eq!(world.noted.leaves(), ["b lobby asked", "watcher lobby ended"]);
}

#[tokio::test(start_paused = true)]
async fn a_late_leave_is_not_told_to_a_room_that_was_made_since() {
    let world = World::start(Noted::default()).await;
    let member = world.member("a").await;
    let rooms = world.node.rooms();
    world.backend.fails("leave", Fault::NoAnswer);
    tokio::select! {
        _ = rooms.leave(&member, "lobby") => panic!("it has no answer"),
        () = world.backend.stuck.notified() => {}
    }
    rooms.destroy("lobby").await.unwrap();
    rooms.add("lobby").await.unwrap();
    let watcher = world.member("watcher").await;
    mended(&world, "b").await;
    rooms.say("lobby", "nothing more").await.unwrap();
    let mut frame = heard(&watcher).await;
    while !frame.contains("nothing more") {
        assert!(!frame.contains("\"a\""), "{frame}");
        frame = heard(&watcher).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_held_up_by_a_hook_keeps_nobody_else_from_being_listed_again() {
    let world = World::start(Noted::holding("asked")).await;
    let (held, other) = (world.member("a").await, world.member("b").await);
    let rooms = world.node.rooms();
    let leave = tokio::spawn(async move { rooms.leave(&held, "lobby").await });
    world.noted.asked.notified().await;
    for _ in 0..2 {
        let of = world.node.generation();
        let place = Member { id: other.id().clone(), joined_at: joined_at(&world, "b").await.unwrap() };
        world.backend.rooms.leave("lobby", &place, of).await.unwrap();
        world.membership.leave(of).await.unwrap(); // it is found dead
        world.lists(&["a", "b"]).await;
    }
    world.noted.goes_on.notify_one();
    leave.await.unwrap().unwrap();
    world.lists(&["b"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_dead_do_not_wait_for_the_hooks_of_each_others_members() {
    let world = World::start(Noted::holding("a lobby died")).await;
    world.membership.died("a");
    world.membership.died("b");
    let has_left = |line: &str| world.noted.leaves().iter().any(|noted| noted == line);
    eventually("the second is told", async || has_left("b lobby died")).await;
    assert!(has_left("a lobby died"));
    world.noted.goes_on.notify_one();
    world.membership.died("c");
    eventually("another is told", async || has_left("c lobby died")).await;
    assert_eq!(world.noted.leaves().len(), 3, "each is told once");
}
