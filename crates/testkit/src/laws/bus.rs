//! Laws of the bus.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use phalanx_core::backend::{
    Bus, Incoming, NodeMessage, NodeMessageKind, Posted, Publication, PublicationKind, Recipient, TagId, TagMessage,
    TagMessageKind,
};
use phalanx_core::{Generation, Incarnation};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::SOON;

/// Turns each law of the bus into a test: `bus_laws!(memory: make())`.
#[macro_export]
macro_rules! bus_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            bus,
            $backend,
            $make,
            [
                a_message_arrives_as_it_was_published,
                messages_of_one_publisher_arrive_in_order,
                the_receiver_is_taken_once,
                a_cancelled_publish_does_not_delay_others,
                a_node_message_reaches_its_recipient,
                a_node_message_to_an_unknown_generation_is_reported_as_not_received,
                a_message_to_a_tag_reaches_the_nodes_that_are_subscribed_to_it,
                messages_to_a_tag_arrive_in_order,
            ]
        );
    };
}

fn node() -> Generation {
    Generation::parse("aaaaaaaaaa").expect("ten characters of base32")
}

/// Returns the next message to a room; skips everything else.
async fn next_message(receiver: &mut Receiver<Incoming>) -> Publication {
    loop {
        match timeout(SOON, receiver.recv()).await.expect("it arrives").expect("the bus is open") {
            Incoming::Publication(message) => return message,
            Incoming::NodeMessage(..)
            | Incoming::TagMessage(..)
            | Incoming::SessionChanged(_)
            | Incoming::InteropCall(_)
            | Incoming::Away
            | Incoming::StillAway
            | Incoming::Gap(..)
            | Incoming::TagGap(..) => {}
        }
    }
}

fn message(room: &str, payload: String) -> Publication {
    Publication { room: room.into(), kind: PublicationKind::Message, connection: None, payload: payload.into() }
}

async fn publish(bus: &Arc<dyn Bus>, payload: String) {
    bus.publish(message("r", payload)).await.expect("the backend answers");
}

/// The payload is the same byte for byte.
pub async fn a_message_arrives_as_it_was_published(bus: Arc<dyn Bus>) {
    let mut receiver = bus.receiver().expect("it is taken the first time");
    bus.open_inbox(node()).await.expect("the backend answers");
    let _subscription = bus.subscribe(&"r".into()).await.expect("the backend answers");
    let sent =
        Publication { kind: PublicationKind::Destroyed(Incarnation(7)), ..message("r", r#"{"a":"ü\n"}"#.into()) };
    bus.publish(sent.clone()).await.expect("the backend answers");
    let received = next_message(&mut receiver).await;
    assert_eq!((received.room, received.kind, received.payload), (sent.room, sent.kind, sent.payload));
}

/// Whether the publish is dropped before it happened or after.
pub async fn a_cancelled_publish_does_not_delay_others(bus: Arc<dyn Bus>) {
    bus.open_inbox(node()).await.expect("the backend answers");
    publish(&bus, "first".into()).await; // connects
    let started = Instant::now();
    for number in 0..10 {
        let _ = bus.publish(message("r", format!("cancelled {number}"))).now_or_never();
        tokio::task::yield_now().await; // the publisher's task meets it without another message
        publish(&bus, format!("completed {number}")).await;
    }
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
}

/// Even if several publishers publish concurrently.
pub async fn messages_of_one_publisher_arrive_in_order(bus: Arc<dyn Bus>) {
    let mut receiver = bus.receiver().expect("it is taken the first time");
    bus.open_inbox(node()).await.expect("the backend answers");
    let _subscription = bus.subscribe(&"r".into()).await.expect("the backend answers");
    let mut publishing = JoinSet::new();
    for publisher in 0..4 {
        let bus = bus.clone();
        publishing.spawn(async move {
            for number in 0..100 {
                publish(&bus, format!("{publisher} {number}")).await;
            }
        });
    }
    let mut next = [0; 4];
    for _ in 0..400 {
        let received = next_message(&mut receiver).await;
        let text = String::from_utf8_lossy(&received.payload).into_owned();
        let (publisher, number) = text.split_once(' ').expect("as it was published");
        let publisher: usize = publisher.parse().expect("as it was published");
        assert_eq!(number.parse(), Ok(next[publisher]), "publisher {publisher}");
        next[publisher] += 1;
    }
    publishing.join_all().await;
}

/// No publish is refused, and no message is dropped.
pub async fn a_full_bus_makes_publishers_wait_and_loses_nothing(bus: Arc<dyn Bus>) {
    const MANY: usize = 10_000;
    let mut receiver = bus.receiver().expect("it is taken the first time");
    bus.open_inbox(node()).await.expect("the backend answers");
    let _subscription = bus.subscribe(&"r".into()).await.expect("the backend answers");
    let publisher = bus.clone();
    let publishing = tokio::spawn(async move {
        for number in 0..MANY {
            publish(&publisher, number.to_string()).await;
        }
    });
    for number in 0..MANY {
        let received = next_message(&mut receiver).await;
        assert_eq!(received.payload, number.to_string());
    }
    publishing.await.expect("the publisher does not panic");
}

/// There is only one.
pub async fn the_receiver_is_taken_once(bus: Arc<dyn Bus>) {
    assert!(bus.receiver().is_some());
    assert!(bus.receiver().is_none());
}

/// Whether it is sent to one node or to all nodes.
pub async fn a_node_message_reaches_its_recipient(bus: Arc<dyn Bus>) {
    let mut receiver = bus.receiver().expect("it is taken the first time");
    bus.open_inbox(node()).await.expect("the backend answers");
    for (id, to) in [(1, Recipient::Node(node())), (2, Recipient::Everyone)] {
        let message = NodeMessage { kind: NodeMessageKind::Call, id, deadline_ms: Some(7), payload: "{}".into() };
        let posted = bus.post(to, message).await.expect("the backend answers");
        assert!(posted.received, "{posted:?}");
        loop {
            match timeout(SOON, receiver.recv()).await.expect("it arrives").expect("the bus is open") {
                Incoming::NodeMessage(from, message) => {
                    assert_eq!((from, message.kind, message.id), (node(), NodeMessageKind::Call, id));
                    assert_eq!((message.deadline_ms, &*message.payload), (Some(7), &b"{}"[..]));
                    break;
                }
                Incoming::Publication(_)
                | Incoming::TagMessage(..)
                | Incoming::SessionChanged(_)
                | Incoming::InteropCall(_)
                | Incoming::Away
                | Incoming::StillAway
                | Incoming::Gap(..)
                | Incoming::TagGap(..) => {}
            }
        }
    }
}

/// And as not on record, since no node of that generation was ever registered.
pub async fn a_node_message_to_an_unknown_generation_is_reported_as_not_received(bus: Arc<dyn Bus>) {
    bus.open_inbox(node()).await.expect("the backend answers");
    let unknown = Generation::parse("zzzzzzzzzz").expect("ten characters of base32");
    let message = NodeMessage { kind: NodeMessageKind::Call, id: 1, deadline_ms: None, payload: "{}".into() };
    let posted = bus.post(Recipient::Node(unknown), message).await.expect("the backend answers");
    assert_eq!(posted, Posted { received: false, on_record: false });
}

fn tag(character: char) -> TagId {
    TagId::parse(&character.to_string().repeat(TagId::TEXT)).expect("it is base64")
}

fn tag_message(tag: TagId, kind: TagMessageKind, payload: String) -> TagMessage {
    TagMessage { tag, kind, id: 7, deadline_ms: Some(9), payload: payload.into() }
}

async fn next_of_a_tag(receiver: &mut Receiver<Incoming>) -> (Generation, TagMessage) {
    loop {
        let incoming = timeout(SOON, receiver.recv()).await.expect("it arrives").expect("the bus is open");
        if let Incoming::TagMessage(from, message) = incoming {
            return (from, message);
        }
    }
}

/// And no other; the publisher learns how many they are. Each kind arrives as it was published.
pub async fn a_message_to_a_tag_reaches_the_nodes_that_are_subscribed_to_it(bus: Arc<dyn Bus>) {
    let mut receiver = bus.receiver().expect("it is taken the first time");
    bus.open_inbox(node()).await.expect("the backend answers");
    let (_subscription, stands) = bus.subscribe_to_tag(tag('a'));
    stands.await.expect("the backend answers");
    let (_again, stands) = bus.subscribe_to_tag(tag('a'));
    stands.await.expect("the backend answers");
    for kind in [TagMessageKind::Frame, TagMessageKind::Call] {
        let unwanted = tag_message(tag('b'), kind, "{}".into());
        assert_eq!(bus.publish_to_tag(unwanted).await.expect("the backend answers"), 0);
        let wanted = tag_message(tag('a'), kind, r#"{"a":"ü\n"}"#.into());
        assert_eq!(
            bus.publish_to_tag(wanted).await.expect("the backend answers"),
            1,
            "one node, not one for each subscription"
        );
        let (from, received) = next_of_a_tag(&mut receiver).await;
        assert_eq!((from, received.tag, received.kind), (node(), tag('a'), kind));
        assert_eq!((received.id, received.deadline_ms, &*received.payload), (7, Some(9), r#"{"a":"ü\n"}"#.as_bytes()));
    }
}

/// Those of one publisher.
pub async fn messages_to_a_tag_arrive_in_order(bus: Arc<dyn Bus>) {
    let mut receiver = bus.receiver().expect("it is taken the first time");
    bus.open_inbox(node()).await.expect("the backend answers");
    let (_subscription, stands) = bus.subscribe_to_tag(tag('a'));
    stands.await.expect("the backend answers");
    for number in 0..50 {
        let message = tag_message(tag('a'), TagMessageKind::Frame, number.to_string());
        bus.publish_to_tag(message).await.expect("the backend answers");
    }
    for number in 0..50 {
        assert_eq!(next_of_a_tag(&mut receiver).await.1.payload, number.to_string());
    }
}
