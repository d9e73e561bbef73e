//! Member lists and presence while calls are dropped, replies are lost and the backend is down.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use phalanx_core::backend::{Member, Membership, RoomStore};
use phalanx_core::{Connection, ConnectionId, ErrorKind, Incarnation};
use serde_json::Value;
use tokio::time::Instant;

use crate::harness::{Fault, Harness, LeaveLog, eventually, next_frame, queued_frames};

async fn joined_at(harness: &Harness, id: &str) -> Option<u64> {
    let members = harness.backend.rooms.members("lobby", 100).await.unwrap().unwrap_or_default();
    members.listed.iter().find(|member| member.id.as_str() == id).map(|member| member.joined_at)
}

/// Fails a leave of `other` and waits for the recovery that it starts, which also makes up for earlier failures.
async fn until_recovered(harness: &Harness, other: &str) {
    harness.backend.fail("leave", Fault::Down);
    let other = harness.member(other).await;
    harness.node.rooms().leave(&other, "lobby").await.unwrap();
    eventually("it is unlisted", async || joined_at(harness, other.id().as_str()).await.is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_join_is_unlisted() {
    let harness = Harness::start(LeaveLog::default()).await;
    let (watcher, member) = (harness.member("watcher").await, harness.connect("a").await);
    harness.backend.fail("join", Fault::NoReply);
    let rooms = harness.node.rooms();
    tokio::select! {
        _ = rooms.join(&member, "lobby") => panic!("its reply never arrives"),
        () = harness.backend.stuck.notified() => {}
    }
    assert_eq!(harness.listed().await, ["a", "watcher"]);
    harness.until_listed(&["watcher"]).await;
    assert!(!member.is_in("lobby"));
    assert!(queued_frames(&watcher).is_empty(), "no join was announced, so no leave is");
}

#[tokio::test(start_paused = true)]
async fn a_join_without_an_answer_is_undone_at_once_and_again_if_that_is_not_answered() {
    let harness = Harness::start(LeaveLog::default()).await;
    let member = harness.connect("a").await;
    for undo in [None, Some(Fault::Down), Some(Fault::ReplyLost)] {
        harness.backend.fail("join", Fault::ReplyLost);
        undo.into_iter().for_each(|fault| harness.backend.fail("undo", fault));
        let started = Instant::now();
        assert_eq!(harness.node.rooms().join(&member, "lobby").await.unwrap_err().kind(), ErrorKind::Unavailable);
        harness.until_listed(&[]).await;
        assert!(undo.is_some() || started.elapsed() < Duration::from_millis(500), "not with a renewal");
    }
    harness.node.rooms().join(&member, "lobby").await.unwrap();
    harness.until_listed(&["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_behind_the_undo_of_another_is_sent_again_under_a_new_number() {
    let harness = Harness::start(LeaveLog::default()).await;
    let (first, other) = (harness.connect("a").await, Member { id: ConnectionId::parse("b").unwrap(), joined_at: 1 });
    let (rooms, of) = (harness.node.rooms(), harness.node.generation());
    harness.backend.rooms.undo_join("lobby", &other, of, 1).await.unwrap();
    rooms.join(&first, "lobby").await.unwrap();
    harness.until_listed(&["a"]).await;
    harness.backend.rooms.undo_join("lobby", &other, of, 100).await.unwrap();
    let second = harness.connect("c").await;
    assert_eq!(rooms.join(&second, "lobby").await.unwrap_err().kind(), ErrorKind::Unavailable);
    harness.until_listed(&["a"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_whose_result_was_lost_may_be_retried_at_once() {
    let harness = Harness::start(LeaveLog::default()).await;
    let member = harness.connect("a").await;
    let rooms = harness.node.rooms();
    harness.backend.fail("join", Fault::ReplyLost);
    assert_eq!(rooms.join(&member, "lobby").await.unwrap_err().kind(), ErrorKind::Unavailable);
    let first = joined_at(&harness, "a").await.unwrap();
    rooms.join(&member, "lobby").await.unwrap();
    let second = joined_at(&harness, "a").await.unwrap();
    assert!(second > first, "the memberships differ, even within a millisecond");
    until_recovered(&harness, "b").await;
    assert_eq!(joined_at(&harness, "a").await, Some(second));
    assert!(member.is_in("lobby") && harness.leave_log.entries() == ["b lobby requested"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_leaves_is_out_at_once_and_unlisted_once_the_backend_answers() {
    let harness = Harness::start(LeaveLog::default()).await;
    let watcher = harness.member("watcher").await;
    let rooms = harness.node.rooms();
    for (fault, id) in [(Fault::Down, "a"), (Fault::ReplyLost, "b")] {
        let member = harness.member(id).await;
        while !next_frame(&watcher).await.contains(&format!("\"join\",\"room\":\"lobby\",\"member\":\"{id}\"")) {}
        harness.backend.fail("leave", fault);
        rooms.leave(&member, "lobby").await.unwrap();
        assert!(!member.is_in("lobby"));
        harness.until_listed(&["watcher"]).await;
        assert!(next_frame(&watcher).await.contains("\"leave\""));
        assert!(queued_frames(&member).is_empty(), "the room is not delivered to it any more");
    }
    assert_eq!(harness.leave_log.entries(), ["a lobby requested", "b lobby requested"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_leave_is_completed() {
    let harness = Harness::start(LeaveLog::default()).await;
    let (watcher, member) = (harness.member("watcher").await, harness.member("a").await);
    while !next_frame(&watcher).await.contains("\"a\"") {}
    let rooms = harness.node.rooms();
    for step in ["leave", "publish"] {
        harness.backend.fail(step, Fault::NoReply);
        tokio::select! {
            _ = rooms.leave(&member, "lobby") => panic!("its reply never arrives"),
            () = harness.backend.stuck.notified() => {}
        }
        assert!(!member.is_in("lobby"));
        harness.until_listed(&["watcher"]).await;
        assert!(next_frame(&watcher).await.contains("\"leave\""));
        rooms.join(&member, "lobby").await.unwrap();
        assert!(next_frame(&watcher).await.contains("\"join\""));
    }
    assert!(queued_frames(&watcher).is_empty(), "each is announced once");
    harness.until_listed(&["a", "watcher"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_removal_is_completed_and_runs_its_hooks() {
    let harness = Harness::start(LeaveLog::default()).await;
    let (watcher, member) = (harness.member("watcher").await, harness.member("a").await);
    while !next_frame(&watcher).await.contains("\"a\"") {}
    harness.backend.fail("leave", Fault::NoReply);
    tokio::select! {
        () = harness.disconnect(&member) => panic!("its reply never arrives"),
        () = harness.backend.stuck.notified() => {}
    }
    assert!(next_frame(&watcher).await.contains("\"leave\""));
    eventually("it is unregistered", async || harness.node.connections().local(member.id()).is_none()).await;
    assert!(!member.is_in("lobby") && harness.leave_log.entries().contains(&"a lobby ended".to_owned()));
    assert!(queued_frames(&watcher).is_empty(), "the leave is announced once");
}

#[tokio::test(start_paused = true)]
async fn a_leave_that_a_reaper_announced_is_not_announced_again() {
    let harness = Harness::start(LeaveLog::default()).await;
    let (watcher, member) = (harness.member("watcher").await, harness.member("a").await);
    let (id, joined_at) = (member.id().clone(), joined_at(&harness, "a").await.unwrap());
    let membership = Member { id, joined_at };
    harness.backend.fail("stored", Fault::NoReply);
    harness.membership.leave(harness.node.generation()).await.unwrap(); // as if a reaper had found it dead
    harness.backend.stuck.notified().await; // it compares the list with what it holds
    harness.backend.rooms.leave("lobby", &membership, Incarnation(1), harness.node.generation()).await.unwrap();
    harness.disconnect(&member).await;
    assert!(harness.leave_log.entries().is_empty());
    harness.node.rooms().say("lobby", "nothing more").await.unwrap();
    let mut frame = next_frame(&watcher).await;
    while !frame.contains("nothing more") {
        assert!(!frame.contains("\"leave\""), "{frame}");
        frame = next_frame(&watcher).await;
    }
    harness.disconnect(&watcher).await;
    assert_eq!(harness.leave_log.entries(), ["watcher lobby ended"]);
}

#[tokio::test(start_paused = true)]
async fn a_leave_whose_entry_the_backend_has_lost_is_announced() {
    let harness = Harness::start(LeaveLog::default()).await;
    let (watcher, rooms) = (harness.member("watcher").await, harness.node.rooms());
    for id in ["leaves", "closes"] {
        let member = harness.member(id).await;
        assert!(next_frame(&watcher).await.contains("\"join\""));
        let membership = Member { id: member.id().clone(), joined_at: joined_at(&harness, id).await.unwrap() };
        harness.backend.rooms.leave("lobby", &membership, Incarnation(1), harness.node.generation()).await.unwrap();
        if id == "leaves" {
            rooms.leave(&member, "lobby").await.unwrap();
        } else {
            harness.disconnect(&member).await;
        }
        rooms.say("lobby", "nothing more").await.unwrap();
        assert!(next_frame(&watcher).await.contains(&format!("\"leave\",\"room\":\"lobby\",\"member\":\"{id}\"")));
        assert!(next_frame(&watcher).await.contains("nothing more"));
    }
    assert_eq!(harness.leave_log.entries(), ["leaves lobby requested", "closes lobby ended"]);
}

/// As if its client had closed right after `roomAdd`: the call is dropped between the join and its announcement.
#[tokio::test(start_paused = true)]
async fn a_join_whose_announcement_was_dropped_is_announced_before_the_leave() {
    let harness = Harness::start(LeaveLog::default()).await;
    let watcher = harness.member("watcher").await;
    for (id, fault) in [("a", Fault::Stuck), ("b", Fault::NoReply)] {
        let (member, rooms) = (harness.connect(id).await, harness.node.rooms());
        harness.backend.fail("publish", fault);
        tokio::select! {
            _ = rooms.join(&member, "lobby") => panic!("it waits for its announcement"),
            () = harness.backend.stuck.notified() => {}
        }
        assert!(member.is_in("lobby"), "its client has the answer");
        harness.disconnect(&member).await;
        rooms.say("lobby", "nothing more").await.unwrap();
        assert!(next_frame(&watcher).await.contains(&format!("\"join\",\"room\":\"lobby\",\"member\":\"{id}\"")));
        assert!(next_frame(&watcher).await.contains(&format!("\"leave\",\"room\":\"lobby\",\"member\":\"{id}\"")));
        assert!(next_frame(&watcher).await.contains("nothing more"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_that_was_not_published_is_announced_later_or_with_the_leave() {
    let harness = Harness::start(LeaveLog::default()).await;
    let (watcher, rooms) = (harness.member("watcher").await, harness.node.rooms());
    let (stays, goes) = (harness.connect("stays").await, harness.connect("goes").await);
    for (fault, member) in [(Fault::Down, &stays), (Fault::ReplyLost, &stays), (Fault::Down, &goes)] {
        harness.backend.fail("publish", fault);
        rooms.join(member, "lobby").await.unwrap();
        if fault == Fault::Down && member == &stays {
            // With a renewal.
            assert!(next_frame(&watcher).await.contains("\"join\",\"room\":\"lobby\",\"member\":\"stays\""));
            rooms.leave(member, "lobby").await.unwrap();
            assert!(next_frame(&watcher).await.contains("\"leave\""));
        }
    }
    harness.backend.fail("publish", Fault::Down);
    rooms.leave(&goes, "lobby").await.unwrap();
    let frames = [next_frame(&watcher).await, next_frame(&watcher).await, next_frame(&watcher).await];
    let expected = [("join", "stays"), ("join", "goes"), ("leave", "goes")];
    for (frame, (event, id)) in frames.iter().zip(expected) {
        assert!(frame.contains(&format!("\"{event}\",\"room\":\"lobby\",\"member\":\"{id}\"")), "{frames:?}");
    }
    until_recovered(&harness, "b").await;
    assert!(queued_frames(&watcher).iter().all(|frame| frame.contains("\"b\"")), "each is announced once");
}

#[tokio::test(start_paused = true)]
async fn a_late_leave_is_not_announced_to_a_newer_incarnation() {
    let harness = Harness::start(LeaveLog::default()).await;
    let member = harness.member("a").await;
    let rooms = harness.node.rooms();
    harness.backend.fail("leave", Fault::NoReply);
    tokio::select! {
        _ = rooms.leave(&member, "lobby") => panic!("its reply never arrives"),
        () = harness.backend.stuck.notified() => {}
    }
    rooms.destroy("lobby").await.unwrap();
    rooms.create("lobby").await.unwrap();
    let watcher = harness.member("watcher").await;
    until_recovered(&harness, "b").await;
    rooms.say("lobby", "nothing more").await.unwrap();
    let mut frame = next_frame(&watcher).await;
    while !frame.contains("nothing more") {
        assert!(!frame.contains("\"a\""), "{frame}");
        frame = next_frame(&watcher).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_a_hook_blocks_keeps_no_other_from_being_relisted() {
    let harness = Harness::start(LeaveLog::blocking("requested")).await;
    let (blocked, other) = (harness.member("a").await, harness.member("b").await);
    let rooms = harness.node.rooms().clone();
    let leave = tokio::spawn(async move { rooms.leave(&blocked, "lobby").await });
    harness.leave_log.blocked.notified().await;
    for _ in 0..2 {
        let of = harness.node.generation();
        let membership = Member { id: other.id().clone(), joined_at: joined_at(&harness, "b").await.unwrap() };
        harness.backend.rooms.leave("lobby", &membership, Incarnation(1), of).await.unwrap();
        harness.membership.leave(of).await.unwrap(); // as if a reaper had found it dead
        harness.until_listed(&["a", "b"]).await;
    }
    harness.leave_log.resume.notify_one();
    leave.await.unwrap().unwrap();
    harness.until_listed(&["b"]).await;
}

#[tokio::test(start_paused = true)]
async fn dead_nodes_are_reaped_without_waiting_for_each_others_hooks() {
    let harness = Harness::start(LeaveLog::blocking("died")).await;
    harness.membership.add_dead_node("a");
    harness.membership.add_dead_node("b");
    let has_left = |line: &str| harness.leave_log.entries().iter().any(|entry| entry == line);
    eventually("the hook runs for the second", async || has_left("b lobby died")).await;
    assert!(has_left("a lobby died"));
    harness.leave_log.resume.notify_one();
    harness.membership.add_dead_node("c");
    eventually("the hook runs for another", async || has_left("c lobby died")).await;
    assert_eq!(harness.leave_log.entries().len(), 3, "each is announced once");
}

#[tokio::test(start_paused = true)]
async fn a_leave_that_is_dropped_while_its_hooks_run_is_completed_before_the_next_join() {
    let harness = Harness::start(LeaveLog::blocking_left("requested")).await;
    let (member, rooms) = (harness.member("a").await, harness.node.rooms().clone());
    let leave = tokio::spawn({
        let (rooms, member) = (rooms.clone(), member.clone());
        async move { rooms.leave(&member, "lobby").await }
    });
    harness.leave_log.blocked.notified().await;
    leave.abort();
    assert!(leave.await.unwrap_err().is_cancelled());
    assert!(!member.is_in("lobby"), "the leave was agreed to");
    let join = tokio::spawn(async move { rooms.join(&member, "lobby").await.map(|()| member) });
    harness.leave_log.resume.notify_one();
    let member = join.await.unwrap().unwrap();
    assert_eq!(harness.leave_log.entries(), ["a lobby requested"], "its hook ran to its end, once, before the join");
    assert!(member.is_in("lobby"));
    harness.until_listed(&["a"]).await;
}

/// The members in each presence frame, up to a message that says that it is the last.
async fn presence_until_last(watcher: &Connection) -> Vec<(String, Vec<String>)> {
    let mut frames = Vec::new();
    loop {
        let frame: Value = serde_json::from_str(&next_frame(watcher).await).unwrap();
        if frame["message"] == "the last" {
            return frames;
        }
        let one = frame["member"].as_str().into_iter();
        let many = frame["members"].as_array().into_iter().flatten().filter_map(Value::as_str);
        frames.push((frame["event"].as_str().unwrap().to_owned(), one.chain(many).map(str::to_owned).collect()));
    }
}

/// And each leave is received once, although another reaper repeats some: a node of the last release reads no list, and gets
/// each by itself.
#[tokio::test(start_paused = true)]
async fn the_leaves_of_a_large_node_are_few_frames_unless_an_old_node_is_in_the_cluster() {
    for (has_old_nodes, frames) in [(false, 3), (true, 450)] {
        let harness = Harness::start(LeaveLog::default()).await;
        harness.backend.has_old_nodes.store(has_old_nodes, Relaxed);
        let (watcher, rooms) = (harness.member("watcher").await, harness.node.rooms());
        let all: Vec<String> = (0..450).map(|number| format!("a-{number}")).collect();
        harness.membership.add_large_dead_node(all.clone());
        let is_done = async || harness.leave_log.entries().len() == 450 && harness.membership.has_no_dead_nodes();
        eventually("all are announced", is_done).await;
        rooms.say("lobby", "the last").await.unwrap();
        let received = presence_until_last(&watcher).await;
        assert_eq!(received.len(), frames);
        assert!(received.iter().all(|(event, members)| event == "leave" && members.len() <= 200));
        let mut left: Vec<String> = received.into_iter().flat_map(|(_, members)| members).collect();
        left.sort_unstable();
        let mut expected = all;
        expected.sort_unstable();
        assert_eq!(left, expected);

        harness.membership.add_large_dead_node([&expected[..150], &["b-1".to_owned(), "b-2".to_owned()]].concat());
        eventually("they are announced", async || harness.membership.has_no_dead_nodes()).await;
        rooms.say("lobby", "the last").await.unwrap();
        let left: Vec<String> =
            presence_until_last(&watcher).await.into_iter().flat_map(|(_, members)| members).collect();
        assert_eq!(left, ["b-1", "b-2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn members_that_a_reaper_took_are_announced_again_in_few_frames() {
    let harness = Harness::start(LeaveLog::default()).await;
    let (watcher, rooms) = (harness.member("watcher").await, harness.node.rooms());
    let mut members = Vec::new();
    for number in 0..300 {
        members.push(harness.connect(&format!("a-{number}")).await);
        rooms.join(&members[number], "lobby").await.unwrap();
    }
    rooms.say("lobby", "the last").await.unwrap();
    assert_eq!(presence_until_last(&watcher).await.len(), 300);
    let of = harness.node.generation();
    let listed = harness.backend.rooms.members("lobby", 1000).await.unwrap().unwrap().listed;
    for member in &listed {
        harness.backend.rooms.leave("lobby", member, Incarnation(1), of).await.unwrap();
    }
    harness.membership.leave(of).await.unwrap(); // as if a reaper had found it dead
    eventually("all are listed again", async || harness.listed_count().await == 301).await;
    let mut received = Vec::new();
    while received.len() < 301 {
        let frame: Value = serde_json::from_str(&next_frame(&watcher).await).unwrap();
        assert_eq!(frame["event"], "join", "{frame}");
        let joined = frame["members"].as_array().unwrap();
        assert!(joined.len() >= 101, "{} in a frame", joined.len());
        received.extend(joined.iter().map(|id| id.as_str().unwrap().to_owned()));
    }
    received.sort_unstable();
    received.dedup();
    assert_eq!(received.len(), 301);
    rooms.leave(&members[0], "lobby").await.unwrap();
    assert!(next_frame(&watcher).await.contains("\"leave\",\"room\":\"lobby\",\"member\":\"a-0\""));
}
