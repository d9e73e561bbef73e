//! Destroying rooms while calls are dropped, replies are lost and the backend is down.

use phalanx_core::ErrorKind;
use phalanx_core::backend::RoomStore;

use crate::harness::{Fault, Harness, LeaveLog, eventually, next_frame, queued_frames};

const DESTROYED: &str = "this room has been deleted";

#[tokio::test(start_paused = true)]
async fn destroying_a_room_removes_no_member_of_its_next_incarnation() {
    let harness = Harness::start(LeaveLog::default()).await;
    let (old, new) = (harness.member("old").await, harness.connect("new").await);
    let rooms = harness.node.rooms();
    harness.backend.fail("publish", Fault::Down);
    assert_eq!(rooms.destroy("lobby").await.unwrap_err().kind(), ErrorKind::Unavailable);
    rooms.create("lobby").await.unwrap();
    rooms.join(&new, "lobby").await.unwrap();
    while !next_frame(&old).await.contains(DESTROYED) {}
    assert!(!old.is_in("lobby") && new.is_in("lobby"));
    rooms.say("lobby", "still here").await.unwrap();
    while !next_frame(&new).await.contains("still here") {}
    assert!(queued_frames(&old).is_empty());
    harness.until_listed(&["new"]).await;
    rooms.join(&old, "lobby").await.unwrap();
    harness.until_listed(&["new", "old"]).await;
}

#[tokio::test(start_paused = true)]
async fn members_that_the_destroy_message_did_not_reach_receive_it_later() {
    let harness = Harness::start(LeaveLog::default()).await;
    let member = harness.member("a").await;
    for fault in [Fault::Down, Fault::ReplyLost] {
        harness.backend.fail("publish", fault);
    }
    assert!(harness.node.rooms().destroy("lobby").await.is_err());
    assert!(next_frame(&member).await.contains(DESTROYED));
    assert!(!member.is_in("lobby"));
    assert_eq!(harness.leave_log.entries(), ["a lobby destroyed"]);
}

#[tokio::test(start_paused = true)]
async fn destroy_may_be_repeated_until_it_succeeds() {
    let harness = Harness::start(LeaveLog::default()).await;
    let member = harness.member("a").await;
    let rooms = harness.node.rooms();
    for fault in [Fault::Down, Fault::ReplyLost] {
        harness.backend.fail("close", fault);
        assert_eq!(rooms.destroy("lobby").await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(member.is_in("lobby"));
    }
    assert!(!rooms.exists("lobby").await.unwrap());
    rooms.destroy("lobby").await.unwrap();
    assert!(next_frame(&member).await.contains(DESTROYED));
    assert_eq!(rooms.destroy("lobby").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_destroy_is_completed() {
    let harness = Harness::start(LeaveLog::default()).await;
    let member = harness.member("a").await;
    harness.backend.fail("forget", Fault::NoReply);
    let rooms = harness.node.rooms();
    tokio::select! {
        _ = rooms.destroy("lobby") => panic!("its reply never arrives"),
        () = harness.backend.stuck.notified() => {}
    }
    while !next_frame(&member).await.contains(DESTROYED) {}
    eventually("the closed room is forgotten", async || harness.backend.rooms.close("lobby").await.unwrap().is_none())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_leaves_while_the_room_is_destroyed_leaves_once() {
    let harness = Harness::start(LeaveLog::blocking("requested")).await;
    let member = harness.member("a").await;
    let rooms = harness.node.rooms();
    let leave = tokio::spawn({
        let (rooms, member) = (rooms.clone(), member.clone());
        async move { rooms.leave(&member, "lobby").await }
    });
    harness.leave_log.blocked.notified().await;
    rooms.destroy("lobby").await.unwrap();
    assert!(next_frame(&member).await.contains(DESTROYED));
    harness.leave_log.resume.notify_one();
    leave.await.unwrap().unwrap();
    harness.disconnect(&member).await;
    harness.engine.stop().await;
    assert_eq!(harness.leave_log.entries(), ["a lobby requested"]);
}
