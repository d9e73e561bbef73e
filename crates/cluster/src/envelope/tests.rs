use super::*;

const CHANNEL: &str = "shop:room:lobby";

const LINK: u64 = 7;

fn sender() -> Generation {
    Generation::parse("aaaaaaaaaa").unwrap()
}

/// A reader that knows the connection of the sender.
fn reader(token: &str, previous: &str) -> EnvelopeReader {
    let mut reader = reader_of(token, previous, OwnLink::default());
    reader.learn_links(&[(sender(), LINK)], 1_000_000);
    reader
}

fn reader_of(token: &str, previous: &str, own: OwnLink) -> EnvelopeReader {
    EnvelopeReader::new(MacKeys::new(token, previous), &Keys::new("actionhero:", "shop"), own)
}

fn envelope(token: &str, seq: u64) -> Vec<u8> {
    envelope_over(token, seq, LINK)
}

fn envelope_over(token: &str, seq: u64, link: u64) -> Vec<u8> {
    envelope_of(PublicationKind::Left(7), token, seq, link)
}

fn envelope_of(kind: PublicationKind, token: &str, seq: u64, link: u64) -> Vec<u8> {
    let message = Publication {
        room: "lobby".into(),
        kind,
        connection: ConnectionId::parse("a-1").ok(),
        payload: "{\"a\":\"\n\"}".into(),
    };
    writer(token).write(CHANNEL, from(&sender(), link), seq, Draft::Publication(&message))
}

fn from(generation: &Generation, link: u64) -> EnvelopeSender<'_> {
    EnvelopeSender { generation, node: "one \"two\"\n", at_ms: 1_000_000, link }
}

fn writer(token: &str) -> EnvelopeWriter {
    EnvelopeWriter::new(MacKeys::new(token, ""))
}

/// A message as the last release writes it.
fn old_envelope(seq: u64) -> Vec<u8> {
    envelope_in(1, seq)
}

/// The same in another version.
fn envelope_in(version: u32, seq: u64) -> Vec<u8> {
    let header = format!(
        r#"{{"v":{version},"kind":"said","from":"aaaaaaaaaa","node":"one","id":0,"at":1000000,"seq":{seq},"who":"a-1""#
    );
    writer("secret").seal(CHANNEL, header.into_bytes(), b"{}")
}

fn refusal(reader: &mut EnvelopeReader, channel: &str, bytes: &[u8], now_ms: u64) -> Option<Refusal> {
    reader.read(channel, bytes, now_ms).err()
}

#[test]
fn an_envelope_is_accepted_once_and_in_order() {
    let mut reader = reader("secret", "");
    let Ok(Some(Incoming::Publication(read))) = reader.read(CHANNEL, &envelope("secret", 2), 1_000_000) else {
        panic!("accepted")
    };
    assert_eq!((&*read.room, read.kind, &*read.payload), ("lobby", PublicationKind::Left(7), &b"{\"a\":\"\n\"}"[..]));
    for seq in [2, 1] {
        assert_eq!(refusal(&mut reader, CHANNEL, &envelope("secret", seq), 1_000_000), Some(Refusal::Replayed));
    }
    assert_eq!(refusal(&mut reader, CHANNEL, &envelope("secret", 3), 1_000_000), None);
}

#[test]
fn a_forged_or_stale_envelope_or_one_of_another_channel_is_refused() {
    let good = envelope("secret", 3);
    let mut reader = reader("secret", "");
    assert_eq!(refusal(&mut reader, "shop:room:other", &good, 1_000_000), Some(Refusal::Unauthenticated));
    assert_eq!(refusal(&mut reader, CHANNEL, &envelope("guess", 1), 1_000_000), Some(Refusal::Unauthenticated));
    for (seq, now_ms) in [(1, 1_030_001), (2, 969_999)] {
        assert_eq!(refusal(&mut reader, CHANNEL, &envelope("secret", seq), now_ms), Some(Refusal::Stale));
        let again = refusal(&mut reader, CHANNEL, &envelope("secret", seq), now_ms);
        assert_eq!(again, Some(Refusal::Replayed), "it is counted as missed once");
    }
    for index in 0..good.len() {
        let mut changed = good.clone();
        changed[index] ^= 1;
        assert!(refusal(&mut reader, CHANNEL, &changed, 1_000_000).is_some(), "byte {index}");
        assert!(refusal(&mut reader, CHANNEL, &good[..index], 1_000_000).is_some(), "{index} bytes");
    }
    for rubbish in ["", "null", "\n", "{}\n", "\n\n{}", &"x".repeat(10_000)] {
        assert_eq!(refusal(&mut reader, CHANNEL, rubbish.as_bytes(), 1), Some(Refusal::Unreadable), "{rubbish}");
    }
    assert_eq!(refusal(&mut reader, CHANNEL, &good, 1_000_000), None);
}

#[test]
fn both_tokens_are_accepted_while_the_token_is_replaced() {
    let mut reader = reader("new", "old");
    assert_eq!(refusal(&mut reader, CHANNEL, &envelope("old", 1), 1_000_000), None);
    assert_eq!(refusal(&mut reader, CHANNEL, &envelope("new", 2), 1_000_000), None);
    assert_eq!(refusal(&mut reader, CHANNEL, &envelope("older", 3), 1_000_000), Some(Refusal::Unauthenticated));
}

#[test]
fn the_common_version_is_the_lowest_and_a_node_reads_its_own_and_the_one_before() {
    for (versions, written) in [(&[3, 3][..], 3), (&[3, 2], 2), (&[4, 3], 3), (&[5, 4], 3), (&[1, 3], 2), (&[], 2)] {
        assert_eq!(common_version(2, 3, versions.iter().copied()), written, "among {versions:?}");
    }
    let mut reader = reader("secret", "");
    for (seq, version, refused) in [(1, 0, true), (2, OLDEST, false), (3, VERSION, false), (4, VERSION + 1, true)] {
        let refusal = refusal(&mut reader, CHANNEL, &envelope_in(version, seq), 1_000_000);
        assert_eq!(refusal, refused.then_some(Refusal::Version), "version {version}");
    }
}

#[test]
fn a_message_over_a_connection_that_was_replaced_is_refused() {
    let mut reader = reader("secret", "");
    let over = |link, seq| envelope_over("secret", seq, link);
    assert_eq!(refusal(&mut reader, CHANNEL, &over(LINK, 1), 1_000_000), None);
    assert_eq!(refusal(&mut reader, CHANNEL, &over(LINK - 1, 2), 1_000_000), Some(Refusal::Outdated));
    let other = Generation::parse("bbbbbbbbbb").unwrap();
    let hello = writer("secret").write_hello("shop", from(&other, LINK + 1), &[sender(), other]);
    assert_eq!(refusal(&mut reader, CHANNEL, &hello, 1_000_000), Some(Refusal::Unauthenticated));
    assert!(matches!(reader.read("shop", &hello, 2_000_000_000), Ok(None)), "whatever the clocks");
    assert_eq!(refusal(&mut reader, CHANNEL, &over(LINK, 2), 1_000_000), Some(Refusal::Outdated));
    assert_eq!(refusal(&mut reader, CHANNEL, &over(LINK + 1, 2), 1_000_000), None);
    let late = writer("secret").write_hello("shop", from(&sender(), LINK), &[sender()]);
    assert!(matches!(reader.read("shop", &late, 1_000_000), Ok(None)));
    assert_eq!(refusal(&mut reader, CHANNEL, &over(LINK, 3), 1_000_000), Some(Refusal::Outdated));
    assert_eq!(refusal(&mut reader, CHANNEL, &over(LINK + 1, 3), 1_000_000), None);
    assert_eq!(refusal(&mut reader, CHANNEL, &over(LINK + 2, 4), 1_000_000), Some(Refusal::UnknownSender), "no hello");
    assert_eq!(refusal(&mut reader, CHANNEL, &over(LINK + 1, 4), 1_000_000), None);
}

#[test]
fn a_room_message_of_an_unknown_sender_is_refused_until_its_connection_is_known() {
    let mut reader = reader("secret", "");
    reader.forget_links();
    for _ in 0..2 {
        let unknown = refusal(&mut reader, CHANNEL, &envelope("secret", 1), 1_000_000);
        assert_eq!(unknown, Some(Refusal::UnknownSender));
    }
    reader.learn_links(&[(sender(), LINK)], 1_000_000);
    assert_eq!(refusal(&mut reader, CHANNEL, &envelope("secret", 1), 1_000_000), None);
}

/// Redis has lost the numbers when a subscription begins: the answers to messages over them are OK.
#[test]
fn a_room_message_over_the_own_connection_is_accepted_although_redis_has_lost_its_number() {
    let own = OwnLink::default();
    own.current.set(Generation::parse("bbbbbbbbbb").unwrap());
    own.link.announce(LINK);
    let mut strange = reader_of("secret", "", own.clone());
    assert_eq!(refusal(&mut strange, CHANNEL, &envelope("secret", 1), 1_000_000), Some(Refusal::UnknownSender));

    own.current.set(sender());
    let mut reader = reader_of("secret", "", own.clone());
    assert_eq!(
        refusal(&mut reader, CHANNEL, &envelope_over("secret", 1, LINK - 1), 1_000_000),
        Some(Refusal::Outdated)
    );
    assert_eq!(refusal(&mut reader, CHANNEL, &envelope("secret", 1), 1_000_000), None);
    own.link.announce(LINK + 1);
    let missed = refusal(&mut reader, CHANNEL, &envelope_over("secret", 2, LINK + 1), 1_000_000);
    assert_eq!(missed, Some(Refusal::UnknownSender), "its hello was missed, and what else was is not known");
}

#[test]
fn a_call_is_accepted_once_whether_its_sender_is_known_or_not() {
    let mut reader = reader("secret", "");
    reader.forget_links();
    let call = NodeMessage { kind: NodeMessageKind::Call, id: 1, deadline_ms: None, payload: "{}".into() };
    let write = |seq, link| writer("secret").write("shop", from(&sender(), link), seq, Draft::NodeMessage(&call));
    assert_eq!(refusal(&mut reader, "shop", &write(5, LINK), 1_000_000), None);
    assert_eq!(refusal(&mut reader, "shop", &write(5, LINK + 1), 1_000_000), Some(Refusal::Replayed));
    assert_eq!(refusal(&mut reader, "shop", &write(6, LINK + 1), 1_000_000), None);
}

#[test]
fn this_release_and_the_last_one_read_each_other() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only their presence counts")]
    struct OldHeader {
        v: u32,
        kind: OldKind,
        seq: u64,
    }
    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum OldKind {
        Left,
    }
    let mut reader = reader("secret", "");
    assert_eq!(refusal(&mut reader, CHANNEL, &old_envelope(1), 1_000_000), None);
    assert_eq!(refusal(&mut reader, CHANNEL, &old_envelope(1), 1_000_000), Some(Refusal::Replayed));
    reader.forget_links();
    assert_eq!(refusal(&mut reader, CHANNEL, &old_envelope(2), 1_000_000), None);
    reader.learn_links(&[(sender(), LINK)], 1_000_000);
    let header = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').next().unwrap().to_vec();
    let read = serde_json::from_slice::<OldHeader>(&header(&envelope("secret", 3)));
    assert!(read.is_ok_and(|header| (header.v, header.seq) == (1, 3)), "the number of the connection is passed over");
    let hello = writer("secret").write_hello("shop", from(&sender(), LINK), &[sender()]);
    assert!(serde_json::from_slice::<OldHeader>(&header(&hello)).is_err(), "it is dropped as unreadable");
    let list = envelope_of(PublicationKind::Leaves, "secret", 4, LINK);
    assert!(serde_json::from_slice::<OldHeader>(&header(&list)).is_err(), "so it is written for later releases only");
    assert_eq!(refusal(&mut reader, CHANNEL, &list, 1_000_000), None);
    for (versions, has_lists) in [(&[1, 2][..], false), (&[2, 2], true), (&[3, 2], true), (&[], false)] {
        let version = EnvelopeVersion::default();
        assert!(!version.has_lists());
        version.agree(versions.iter().copied());
        assert_eq!(version.has_lists(), has_lists, "among {versions:?}");
    }
}
