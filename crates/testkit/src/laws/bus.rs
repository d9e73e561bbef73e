//! Laws of the bus.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use phalanx_core::Generation;
use phalanx_core::backend::{Arrival, Bus, Letter, LetterKind, Message, MessageKind, Posted, Recipient};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

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
                the_receiving_end_is_taken_once,
                who_gives_up_publishing_holds_nobody_up,
                a_letter_arrives_at_whom_it_is_addressed_to,
                a_letter_to_nobody_says_so,
            ]
        );
    };
}

fn node() -> Generation {
    Generation::parse("aaaaaaaaaa").expect("ten characters of base32")
}

/// The next message that was said, whatever else comes.
async fn heard(receiver: &mut Receiver<Arrival>) -> Message {
    loop {
        match timeout(SOON, receiver.recv()).await.expect("it arrives").expect("the bus goes on") {
            Arrival::Message(message) => return message,
            Arrival::Letter(..) | Arrival::Asked(_) | Arrival::Away | Arrival::Gap(_) => {}
        }
    }
}

fn message(room: &str, payload: String) -> Message {
    Message { room: room.into(), kind: MessageKind::Said, who: None, payload: payload.into() }
}

async fn publish(bus: &Arc<dyn Bus>, payload: String) {
    bus.publish(message("r", payload)).await.expect("the backend answers");
}

/// Byte for byte.
pub async fn a_message_arrives_as_it_was_published(bus: Arc<dyn Bus>) {
    let mut receiver = bus.receiver().expect("nobody took it before");
    bus.appear_as(node()).await.expect("the backend answers");
    let _held = bus.subscribe(&"r".into()).await.expect("the backend answers");
    let sent = Message { kind: MessageKind::Destroyed(7), ..message("r", r#"{"a":"ü\n"}"#.into()) };
    bus.publish(sent.clone()).await.expect("the backend answers");
    let heard = heard(&mut receiver).await;
    assert_eq!((heard.room, heard.kind, heard.payload), (sent.room, sent.kind, sent.payload));
}

/// Whoever drops a publish before it happened, or after.
pub async fn who_gives_up_publishing_holds_nobody_up(bus: Arc<dyn Bus>) {
    bus.appear_as(node()).await.expect("the backend answers");
    publish(&bus, "first".into()).await; // connects
    let began = Instant::now();
    for number in 0..10 {
        let _ = bus.publish(message("r", format!("given up {number}"))).now_or_never();
        tokio::task::yield_now().await; // the publisher finds it alone
        publish(&bus, format!("meant {number}")).await;
    }
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}

/// However many speak at once.
pub async fn what_one_speaker_says_arrives_in_order(bus: Arc<dyn Bus>) {
    let mut receiver = bus.receiver().expect("nobody took it before");
    bus.appear_as(node()).await.expect("the backend answers");
    let _held = bus.subscribe(&"r".into()).await.expect("the backend answers");
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
        let heard = heard(&mut receiver).await;
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
    bus.appear_as(node()).await.expect("the backend answers");
    let _held = bus.subscribe(&"r".into()).await.expect("the backend answers");
    let speaker = bus.clone();
    let speaking = tokio::spawn(async move {
        for number in 0..MANY {
            publish(&speaker, number.to_string()).await;
        }
    });
    for number in 0..MANY {
        let heard = heard(&mut receiver).await;
        assert_eq!(heard.payload, number.to_string());
    }
    speaking.await.expect("the speaker does not panic");
}

/// There is one.
pub async fn the_receiving_end_is_taken_once(bus: Arc<dyn Bus>) {
    assert!(bus.receiver().is_some());
    assert!(bus.receiver().is_none());
}

/// To this node, and to everybody.
pub async fn a_letter_arrives_at_whom_it_is_addressed_to(bus: Arc<dyn Bus>) {
    let mut receiver = bus.receiver().expect("nobody took it before");
    bus.appear_as(node()).await.expect("the backend answers");
    for (id, to) in [(1, Recipient::Node(node())), (2, Recipient::Everyone)] {
        let letter = Letter { kind: LetterKind::Call, id, deadline_ms: Some(7), payload: "{}".into() };
        let posted = bus.post(to, letter).await.expect("the backend answers");
        assert!(posted.received, "{posted:?}");
        loop {
            match timeout(SOON, receiver.recv()).await.expect("it arrives").expect("the bus goes on") {
                Arrival::Letter(from, letter) => {
                    assert_eq!((from, letter.kind, letter.id), (node(), LetterKind::Call, id));
                    assert_eq!((letter.deadline_ms, &*letter.payload), (Some(7), &b"{}"[..]));
                    break;
                }
                Arrival::Message(_) | Arrival::Asked(_) | Arrival::Away | Arrival::Gap(_) => {}
            }
        }
    }
}

/// Nobody listens, and nobody of that name was ever heard of.
pub async fn a_letter_to_nobody_says_so(bus: Arc<dyn Bus>) {
    bus.appear_as(node()).await.expect("the backend answers");
    let nobody = Generation::parse("zzzzzzzzzz").expect("ten characters of base32");
    let letter = Letter { kind: LetterKind::Call, id: 1, deadline_ms: None, payload: "{}".into() };
    let posted = bus.post(Recipient::Node(nobody), letter).await.expect("the backend answers");
    assert_eq!(posted, Posted { received: false, on_record: false });
}
