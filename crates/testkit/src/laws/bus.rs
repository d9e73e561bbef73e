//! Laws of the bus.

use std::sync::Arc;

use phalanx_core::backend::{Bus, Message, MessageKind};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::SOON;

/// Makes a test of each law of the bus: `bus_laws!(memory: make())`.
#[macro_export]
macro_rules! bus_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            bus,
            $backend,
            $make,
            [
                a_message_arrives_as_it_was_published,
                what_one_speaker_says_arrives_in_order,
                a_full_bus_makes_speakers_wait_and_loses_nothing,
                the_receiving_end_is_taken_once,
            ]
        );
    };
}

fn message(room: &str, payload: String) -> Message {
    Message { room: room.into(), kind: MessageKind::Said, speaker: None, payload: payload.into() }
}

async fn publish(bus: &Arc<dyn Bus>, payload: String) {
    bus.publish(message("r", payload)).await.expect("the backend answers");
}

/// Byte for byte.
pub async fn a_message_arrives_as_it_was_published(bus: Arc<dyn Bus>) {
    let mut receiver = bus.receiver().expect("nobody took it before");
    bus.subscribe(&"r".into()).await.expect("the backend answers");
    let sent = Message { kind: MessageKind::Destroyed, ..message("r", r#"{"a":"ü\n"}"#.into()) };
    bus.publish(sent.clone()).await.expect("the backend answers");
    let heard = timeout(SOON, receiver.recv()).await.expect("it arrives").expect("the bus goes on");
    assert_eq!((heard.room, heard.kind, heard.payload), (sent.room, sent.kind, sent.payload));
}

/// However many speak at once.
pub async fn what_one_speaker_says_arrives_in_order(bus: Arc<dyn Bus>) {
    let mut receiver = bus.receiver().expect("nobody took it before");
    bus.subscribe(&"r".into()).await.expect("the backend answers");
    let mut speaking = JoinSet::new();
    for speaker in 0..4 {
        let bus = bus.clone();
        speaking.spawn(async move {
            for number in 0..100 {
                publish(&bus, format!("{speaker} {number}")).await;
            }
        });
    }
    let mut next = [0; 4];
    for _ in 0..400 {
        let heard = timeout(SOON, receiver.recv()).await.expect("all arrive").expect("the bus goes on");
        let text = String::from_utf8_lossy(&heard.payload).into_owned();
        let (speaker, number) = text.split_once(' ').expect("as it was said");
        let speaker: usize = speaker.parse().expect("as it was said");
        assert_eq!(number.parse(), Ok(next[speaker]), "speaker {speaker}");
        next[speaker] += 1;
    }
    speaking.join_all().await;
}

/// Nobody is refused, nothing is dropped.
pub async fn a_full_bus_makes_speakers_wait_and_loses_nothing(bus: Arc<dyn Bus>) {
    const MANY: usize = 10_000;
    let mut receiver = bus.receiver().expect("nobody took it before");
    bus.subscribe(&"r".into()).await.expect("the backend answers");
    let speaker = bus.clone();
    let speaking = tokio::spawn(async move {
        for number in 0..MANY {
            publish(&speaker, number.to_string()).await;
        }
    });
    for number in 0..MANY {
        let heard = timeout(SOON, receiver.recv()).await.expect("all arrive").expect("the bus goes on");
        assert_eq!(heard.payload, number.to_string());
    }
    speaking.await.expect("the speaker does not panic");
}

/// There is one.
pub async fn the_receiving_end_is_taken_once(bus: Arc<dyn Bus>) {
    assert!(bus.receiver().is_some());
    assert!(bus.receiver().is_none());
}
