//! Tags of connections, on one node.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phalanx_core::backend::{GapCause, Incoming, SessionKey, TagMessage, TagMessageKind};
use phalanx_core::config::ByteSize;
use phalanx_core::connection::{Frame, OutboxItem};
use phalanx_core::protocol::CloseReason;
use phalanx_core::{ApplyError, Connection, ErrorKind, Generation, SessionSign, TagId, TaggedConnections};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::harness::{Fault, Harness, LeaveLog, eventually, queued_frames};

async fn start() -> Harness {
    Harness::start(LeaveLog::default()).await
}

impl Harness {
    fn tagged(&self, tag: &str) -> TaggedConnections {
        self.node.connections().tagged(tag)
    }

    /// A connection with a tag.
    async fn tagged_member(&self, id: &str, tag: &str) -> Connection {
        let connection = self.connect(id).await;
        connection.tag(tag).await.unwrap();
        connection
    }

    async fn ids(&self, tagged: &TaggedConnections) -> Vec<String> {
        let listed = tagged.list().await.unwrap();
        assert_eq!((listed.count, &listed.missing[..]), (listed.ids.len(), &[][..]));
        assert_eq!(tagged.count().await.unwrap().count, listed.count);
        listed.ids.iter().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn a_connection_is_found_by_its_tags_until_they_are_taken_or_it_ends() {
    let harness = start().await;
    let (ada, bob) = (harness.tagged_member("ada", "staff").await, harness.tagged_member("bob", "staff").await);
    let staff = harness.tagged("staff");
    assert_eq!(harness.ids(&staff).await, ["ada", "bob"]);
    ada.tag("staff").await.unwrap();
    ada.tag("night:shift-2_a.b").await.unwrap();
    assert_eq!(harness.ids(&staff).await, ["ada", "bob"], "a second time changes nothing");
    assert_eq!(harness.ids(&harness.tagged("night:shift-2_a.b")).await, ["ada"]);
    assert_eq!(ada.tags().iter().map(|tag| &**tag).collect::<Vec<_>>(), ["staff", "night:shift-2_a.b"]);
    assert!(ada.untag("staff") && !ada.untag("staff") && !ada.untag("unknown"));
    assert_eq!(harness.ids(&staff).await, ["bob"]);
    assert_eq!(ada.tags().len(), 1);
    harness.disconnect(&bob).await;
    assert!(harness.ids(&staff).await.is_empty());
    assert!(bob.tags().is_empty());
    let ended = bob.tag("staff").await.unwrap_err();
    assert_eq!(ended.code(), "conflict");
    assert!(harness.ids(&staff).await.is_empty(), "one that has ended stays out");
}

#[tokio::test]
async fn a_name_that_cannot_be_one_is_refused_wherever_it_is_used() {
    let harness = start().await;
    let ada = harness.connect("ada").await;
    let long = "x".repeat(101);
    for name in ["", "two words", "caf\u{e9}", "a/b", "a\n", &long] {
        let tagged = harness.tagged(name);
        for refused in [
            ada.tag(name).await.unwrap_err(),
            tagged.send(&1).await.unwrap_err(),
            tagged.count().await.unwrap_err(),
            tagged.list().await.unwrap_err(),
            tagged.close(CloseReason::Destroyed).await.unwrap_err(),
            tagged.apply("details", json!(null)).await.unwrap_err(),
        ] {
            assert_eq!((refused.code(), &*refused.details()[0].path), ("invalid_input", "tag"), "{name}");
        }
        assert!(!ada.untag(name));
    }
    ada.tag(&long[..100]).await.unwrap();
}

#[tokio::test]
async fn a_connection_has_so_many_tags_and_those_of_the_server_do_not_count() {
    let harness = start().await;
    let ada = harness.connect("ada").await;
    harness.set_session(&ada, "hash", Some("ada")).await;
    for number in 0..32 {
        ada.tag(&format!("t{number}")).await.unwrap();
    }
    let refused = ada.tag("t32").await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Conflict, "too_many_tags"));
    assert!(harness.ids(&harness.tagged("t32")).await.is_empty());
    ada.tag("t31").await.unwrap();
    harness.set_session(&ada, "other", Some("ada")).await;
    assert!(ada.untag("t0"));
    ada.tag("t32").await.unwrap();
    assert_eq!(ada.tags().len(), 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_given_and_taken_at_once_stay_within_the_bound_and_none_outlives_its_connection() {
    const TAGS: usize = 36;
    let harness = start().await;
    for round in 0..50 {
        let ada = harness.connect(&format!("ada{round}")).await;
        let mut changing = JoinSet::new();
        for number in 0..2 * TAGS {
            let (ada, tag) = (ada.clone(), format!("t{}", number % TAGS));
            changing.spawn(async move {
                let given = ada.tag(&tag).await;
                assert!(ada.tags().len() <= 32, "{:?}", ada.tags());
                if number % 3 == 0 {
                    ada.untag(&tag);
                }
                given.map_err(|refused| refused.code().to_owned())
            });
        }
        let (_, given) = tokio::join!(harness.disconnect(&ada), changing.join_all());
        for refused in given.into_iter().filter_map(Result::err) {
            assert!(["conflict", "too_many_tags"].contains(&&*refused), "{refused}");
        }
        assert!(ada.tags().is_empty());
    }
    for number in 0..TAGS {
        assert!(harness.ids(&harness.tagged(&format!("t{number}"))).await.is_empty(), "t{number}");
    }
}

#[tokio::test]
async fn a_message_reaches_the_connections_with_the_tag_and_is_encoded_once() {
    let harness = start().await;
    let others = harness.tagged_member("cy", "other").await;
    let members = [harness.tagged_member("ada", "staff").await, harness.tagged_member("bob", "staff").await];
    let staff = harness.tagged("staff");
    staff.send(&json!({ "closed": 7 })).await.unwrap();
    staff.send(&json!({ "context": "user", "message": "hi" })).await.unwrap();
    staff.send("plain").await.unwrap();
    let frames = members.each_ref().map(|member| {
        let frames: Vec<_> = std::iter::from_fn(|| match member.next() {
            OutboxItem::Frame(Frame::Text(text)) => Some(text),
            _ => None,
        })
        .collect();
        let texts: Vec<_> = frames.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        assert_eq!(
            texts,
            [
                r#"{"closed":7,"context":"response"}"#,
                r#"{"context":"user","message":"hi"}"#,
                r#"{"context":"response","message":"plain"}"#,
            ]
        );
        frames
    });
    for (one, other) in frames[0].iter().zip(&frames[1]) {
        assert_eq!(one.as_ptr(), other.as_ptr(), "the same bytes, not a copy");
    }
    // What the bus hands back to its sender is not delivered again.
    staff.count().await.unwrap();
    for member in members.iter().chain([&others]) {
        assert!(queued_frames(member).is_empty());
    }
}

#[tokio::test]
async fn a_message_that_no_outbox_could_take_is_refused_and_closes_no_connection() {
    let mut limits = (0, 0);
    for (max_call, outbox) in [(200, 1_000_000), (1_000_000, 200)] {
        let harness = Harness::start_with(LeaveLog::default(), |config| {
            config.cluster.max_call = ByteSize::b(max_call);
            config.websocket.outbox_bytes = ByteSize::b(outbox);
        })
        .await
        .unwrap();
        let ada = harness.tagged_member("ada", "staff").await;
        let refused = harness.tagged("staff").send(&"x".repeat(200)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PayloadTooLarge);
        harness.tagged("staff").send(&"x".repeat(100)).await.unwrap();
        limits.0 += queued_frames(&ada).len();
        limits.1 += usize::from(ada.is_closing());
    }
    assert_eq!(limits, (2, 0));
}

#[tokio::test]
async fn a_user_is_found_by_the_session_alone() {
    let harness = start().await;
    let (ada, other) = (harness.connect("one").await, harness.tagged_member("other", "ada").await);
    harness.set_session(&ada, "hash", Some("ada")).await;
    let user = harness.node.connections().user("ada");
    assert_eq!(harness.ids(&user).await, ["one"], "a tag of that name is another one");
    assert!(ada.tags().is_empty(), "an application does not see it");
    assert!(!ada.untag("ada"), "nor can it take it");
    user.send(&json!({ "context": "user" })).await.unwrap();
    assert_eq!((queued_frames(&ada).len(), queued_frames(&other).len()), (1, 0));
    harness.set_session(&ada, "hash", Some("b\u{f6}b \u{1f600}")).await;
    assert!(harness.ids(&user).await.is_empty());
    assert_eq!(harness.ids(&harness.node.connections().user("b\u{f6}b \u{1f600}")).await, ["one"]);
    harness.set_session(&ada, "hash", None).await;
    assert!(harness.ids(&harness.node.connections().user("b\u{f6}b \u{1f600}")).await.is_empty());
}

#[tokio::test]
async fn all_connections_with_a_tag_are_closed_with_a_code_of_applications() {
    let harness = start().await;
    let members = [harness.tagged_member("ada", "staff").await, harness.tagged_member("bob", "staff").await];
    let staff = harness.tagged("staff");
    for reason in [CloseReason::NodeStops, CloseReason::SlowReader, CloseReason::SessionRenewed] {
        let refused = staff.close(reason).await.unwrap_err();
        assert_eq!((refused.code(), &*refused.details()[0].path), ("invalid_input", "code"));
    }
    assert!(members.iter().all(|member| !member.is_closing()));
    assert_eq!(staff.close(CloseReason::NotAllowed).await.unwrap().count, 2);
    eventually("all are closed", async || {
        members.iter().all(|member| member.closing() == Some(CloseReason::NotAllowed))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_connections_are_closed_over_the_time_of_a_drain_and_each_in_one_turn() {
    let harness = Harness::start_with(LeaveLog::default(), |config| config.websocket.drain = Duration::from_secs(2))
        .await
        .unwrap();
    let mut members = Vec::new();
    for number in 0..1000 {
        members.push(harness.tagged_member(&format!("m{number}"), "all").await);
    }
    let all = harness.tagged("all");
    let start = Instant::now();
    assert_eq!(all.close(CloseReason::Destroyed).await.unwrap().count, 1000);
    assert_eq!(all.close(CloseReason::NotAllowed).await.unwrap().count, 1000, "they have the tag still");
    let closed = || members.iter().filter(|member| member.is_closing()).count();
    tokio::time::sleep_until(start + Duration::from_secs(1)).await;
    let half = closed();
    assert!((450..=550).contains(&half), "{half} after half of the time");
    let first: usize = members[..500].iter().filter(|member| member.is_closing()).count();
    assert!((150..=350).contains(&first), "in random order: {first} of the first 500");
    eventually("all are closed", async || closed() == 1000).await;
    assert!((1900..=2300).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert!(members.iter().all(|member| member.closing() == Some(CloseReason::Destroyed)));
}

#[tokio::test]
async fn a_method_runs_on_all_of_them_and_counts_its_errors() {
    let harness = start().await;
    let (ada, bob) = (harness.tagged_member("ada", "staff").await, harness.tagged_member("bob", "staff").await);
    let staff = harness.tagged("staff");
    let set = staff.apply("set", json!(["k", 7])).await.unwrap();
    assert_eq!((set.count, set.failed, set.results.len(), set.missing.len()), (2, 0, 2, 0));
    assert_eq!((ada.get("k"), bob.get("k")), (Some(json!(7)), Some(json!(7))));
    bob.close(CloseReason::Destroyed);
    let got = staff.apply("get", json!(["k"])).await.unwrap();
    assert_eq!((got.count, got.failed), (2, 1));
    for (id, result) in &got.results {
        match id.as_str() {
            "ada" => assert_eq!(result.as_ref().unwrap(), &json!(7)),
            _ => assert!(matches!(result, Err(ApplyError::NotFound)), "{result:?}"),
        }
    }
    let unknown = staff.apply("explode", json!(null)).await.unwrap();
    assert_eq!(unknown.failed, 2);
}

#[tokio::test]
async fn ten_thousand_connections_are_counted_and_the_first_of_them_listed() {
    const ALL: usize = 10_000;
    let harness = start().await;
    let mut members = Vec::new();
    for number in 0..ALL {
        members.push(harness.tagged_member(&format!("m{number}"), "all").await);
    }
    let all = harness.tagged("all");
    assert_eq!(all.count().await.unwrap().count, ALL);
    let listed = all.list().await.unwrap();
    assert_eq!((listed.count, listed.ids.len()), (ALL, TaggedConnections::LISTED));
    let got = all.apply("get", json!(["k"])).await.unwrap();
    assert_eq!((got.count, got.failed, got.results.len()), (ALL, 0, TaggedConnections::RESULTS));
    all.send(&json!({ "context": "user" })).await.unwrap();
    assert!(members.iter().all(|member| queued_frames(member) == [r#"{"context":"user"}"#]));
}

#[tokio::test]
async fn results_and_ids_end_where_a_call_may_have_no_more_bytes() {
    let harness = Harness::start_with(LeaveLog::default(), |config| {
        config.cluster.max_call = ByteSize::b(2000);
    })
    .await
    .unwrap();
    for number in 0..90 {
        let member = harness.tagged_member(&format!("member-with-a-long-name-{number:03}"), "all").await;
        member.set("k", "x".repeat(100)).unwrap();
    }
    let all = harness.tagged("all");
    let listed = all.list().await.unwrap();
    assert_eq!((listed.count, listed.ids.len()), (90, (2000 - 256) / (27 + 4)));
    let got = all.apply("get", json!(["k"])).await.unwrap();
    assert_eq!((got.count, got.failed), (90, 0));
    assert!((5..=15).contains(&got.results.len()), "{}", got.results.len());
}

#[tokio::test]
async fn a_message_that_may_not_have_been_published_has_reached_this_node() {
    let harness = start().await;
    let ada = harness.tagged_member("ada", "staff").await;
    harness.backend.fail("publish to tag", Fault::Down);
    let unknown = harness.tagged("staff").send(&json!({ "n": 1 })).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unavailable);
    assert_eq!(queued_frames(&ada).len(), 1);
    harness.backend.fail("publish to tag", Fault::Down);
    assert_eq!(harness.tagged("staff").count().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn nodes_that_received_a_call_and_did_not_answer_make_it_wait_until_its_deadline() {
    let harness = start().await;
    let _ada = harness.tagged_member("ada", "staff").await;
    harness.backend.other_receivers.store(1, Relaxed);
    let start = Instant::now();
    let counted = harness.tagged("staff").within(Duration::from_secs(2)).count().await.unwrap();
    assert_eq!(counted.count, 1);
    assert!((1990..=2100).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    let start = Instant::now();
    harness.tagged("none-here").count().await.unwrap();
    assert!((4990..=5100).contains(&start.elapsed().as_millis()), "the default: {:?}", start.elapsed());
    harness.backend.other_receivers.store(0, Relaxed);
    let start = Instant::now();
    harness.tagged("staff").count().await.unwrap();
    assert!(start.elapsed() < Duration::from_millis(100), "its own receipt counts: {:?}", start.elapsed());
}

/// The id of a tag: that under which the node subscribes for it.
async fn id_of(harness: &Harness, tagging: impl Future<Output = ()>) -> TagId {
    tagging.await;
    harness.backend.last_tag()
}

fn gap(tag: TagId) -> Incoming {
    Incoming::TagGap(tag, GapCause::Away)
}

const GAP: &str = r#"{"context":"api","event":"gap"}"#;

#[tokio::test]
async fn a_gap_of_several_tags_is_one_frame_until_it_is_written() {
    let harness = start().await;
    let ada = harness.connect("ada").await;
    let mut ids = Vec::new();
    for tag in ["a", "b", "c"] {
        ids.push(id_of(&harness, async { ada.tag(tag).await.unwrap() }).await);
    }
    ids.push(id_of(&harness, harness.set_session(&ada, "hash", Some("ada"))).await);
    for _ in 0..2 {
        for id in &ids {
            harness.backend.inject(gap(*id)).await;
        }
        harness.tagged("a").count().await.unwrap(); // behind the gaps
        assert_eq!(queued_frames(&ada), [GAP]);
    }
    let other = harness.tagged_member("other", "d").await;
    harness.backend.inject(gap(ids[0])).await;
    harness.tagged("a").send(&json!({ "context": "user" })).await.unwrap();
    harness.backend.inject(gap(ids[0])).await;
    harness.tagged("a").count().await.unwrap();
    assert_eq!(queued_frames(&ada).iter().filter(|frame| *frame == GAP).count(), 1, "the first is not written yet");
    assert!(queued_frames(&other).is_empty(), "it has none of these tags");
}

#[tokio::test]
async fn signs_of_a_session_are_observed_and_no_matter_of_its_clients() {
    let harness = start().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observed = seen.clone();
    harness.engine.observe_sessions(move |sign, connections| {
        let ids: Vec<String> = connections.iter().map(|connection| connection.id().to_string()).collect();
        observed.lock().unwrap().push((sign, ids));
    });
    let ada = harness.connect("ada").await;
    let staff = id_of(&harness, async { ada.tag("staff").await.unwrap() }).await;
    let id = id_of(&harness, harness.set_session(&ada, "hash", None)).await;
    assert_eq!(id, SessionKey::of("hash").tag());
    for forged in [staff, SessionKey::of("other").tag()] {
        harness.backend.inject(Incoming::SessionChanged(forged)).await;
    }
    harness.backend.inject(gap(id)).await;
    harness.backend.inject(Incoming::SessionChanged(id)).await;
    eventually("both are observed", async || seen.lock().unwrap().len() == 2).await;
    let of_ada = |sign| (sign, vec!["ada".to_owned()]);
    assert_eq!(*seen.lock().unwrap(), [SessionSign::Gap, SessionSign::Changed].map(of_ada));
    assert!(!ada.is_closing(), "it is the observer's");
    assert!(queued_frames(&ada).is_empty());
}

#[tokio::test]
async fn malformed_messages_of_other_nodes_are_ignored() {
    let harness = start().await;
    let ada = harness.connect("ada").await;
    let tag = id_of(&harness, async { ada.tag("staff").await.unwrap() }).await;
    let from = Generation::random();
    let message = |kind, payload: &'static str| {
        let payload = payload.into();
        Incoming::TagMessage(from, TagMessage { tag, kind, id: 1, deadline_ms: Some(u64::MAX), payload })
    };
    for (kind, payload) in [
        (TagMessageKind::Call, "{}"),
        (TagMessageKind::Call, r#"{"op":"close"}"#),
        (TagMessageKind::Call, r#"{"op":"close","code":4004}"#),
        (TagMessageKind::Call, r#"{"op":"later"}"#),
    ] {
        harness.backend.inject(message(kind, payload)).await;
    }
    harness.backend.inject(message(TagMessageKind::Frame, r#"{"n":1}"#)).await;
    eventually("the next one arrives", async || queued_frames(&ada) == [r#"{"n":1}"#]).await;
    assert!(!ada.is_closing());
    harness.backend.inject(message(TagMessageKind::Call, r#"{"op":"close","code":4501}"#)).await;
    eventually("it is closed", async || ada.closing() == Some(CloseReason::NotAllowed)).await;
}

#[tokio::test]
async fn a_frame_of_another_node_that_no_outbox_takes_closes_no_connection() {
    let harness = Harness::start_with(LeaveLog::default(), |config| config.websocket.outbox_bytes = ByteSize::mib(2))
        .await
        .unwrap();
    let ada = harness.connect("ada").await;
    let tag = id_of(&harness, async { ada.tag("staff").await.unwrap() }).await;
    let frame = |payload: String| {
        let (kind, payload) = (TagMessageKind::Frame, payload.into());
        let message = TagMessage { tag, kind, id: 0, deadline_ms: None, payload };
        Incoming::TagMessage(Generation::random(), message)
    };
    harness.backend.inject(frame("x".repeat(2 * 1024 * 1024 + 1))).await;
    harness.backend.inject(frame("{}".into())).await;
    eventually("the next one arrives", async || queued_frames(&ada) == ["{}"]).await;
    assert!(!ada.is_closing());
}

#[tokio::test]
async fn a_dropped_call_has_given_the_tag() {
    let harness = start().await;
    let ada = harness.connect("ada").await;
    harness.backend.hold_subscriptions();
    let waited = timeout(Duration::from_millis(20), ada.tag("staff")).await;
    assert!(waited.is_err(), "the subscription does not stand");
    assert_eq!(harness.ids(&harness.tagged("staff")).await, ["ada"]);
}
