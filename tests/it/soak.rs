//! The checker of the soak finds each kind of fault in a small history, and none in one without. The soak itself runs
//! for minutes: `just chaos`.

#[path = "../soak/checker/mod.rs"]
#[allow(dead_code, reason = "the soak prints more of a report")]
mod checker;
#[path = "../soak/history.rs"]
#[allow(dead_code, reason = "the soak records")]
mod history;
#[path = "../soak/schedule.rs"]
#[allow(dead_code, reason = "the soak runs it")]
mod schedule;

use std::time::Duration;

use checker::{Kind, check};
use history::{Change, Event, Record, Recorder, read};
use schedule::{KINDS, schedule};

/// A line is one event; the next is 100 ms later. Sockets are letters.
///
/// `a on 0`: a socket of a node opens and joins the room `r`, which has presence. Others: `a joins`, `a leaves`,
/// `a closes`, `a says x`, `a says last x`, `a ok x`, `a unavailable x`, `a gets x`, `a sees join b`, `a gap`,
/// `a away`, `a tries` (a join that is not answered), `a fails` (that it is refused), `0 shows a@5 b@6` (a list during the
/// soak), `0 hold begins`, `0 hold ends` (any fault), `0 lists a b`, `0 counts 3`, `0 is mute`, `0 freezes`, `0 thaws`, `wait 20` (seconds), `calm`, `end`.
fn history(script: &str) -> Vec<Record> {
    let (mut records, mut at) = (Vec::new(), 0);
    let rooms = vec!["r".to_owned()];
    records.push(Record { at, event: Event::Soak { seed: 0, rooms: rooms.clone(), presence: rooms } });
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        at += 100_000;
        let words: Vec<&str> = line.split(' ').collect();
        if let ["wait", seconds] = words[..] {
            at += seconds.parse::<u64>().unwrap() * 1_000_000;
            continue;
        }
        records.extend(events(&words, at).into_iter().map(|event| Record { at, event }));
    }
    records.push(Record { at: at + 100_000, event: Event::End });
    records
}

fn events(words: &[&str], at: u64) -> Vec<Event> {
    let number = || words[0].parse::<usize>().unwrap();
    let socket = usize::from(words[0].as_bytes()[0]);
    let (room, text) = ("r".to_owned(), words.last().unwrap().to_string());
    let joins = [Event::Joining { socket, room: room.clone() }, Event::Joined { socket, room: room.clone() }];
    let answered = |code: Option<&str>| Event::Answered { socket, text: text.clone(), code: code.map(str::to_owned) };
    let freeze = "freeze".to_owned();
    let event = match words[1..] {
        ["on", node] => {
            let open = Event::Open { socket, node: node.parse().unwrap(), id: words[0].to_owned() };
            return [vec![open], joins.to_vec()].concat();
        }
        ["joins"] => return joins.to_vec(),
        ["joining"] => return joins[..1].to_vec(),
        ["joined"] => return joins[1..].to_vec(),
        ["leaves"] => return vec![Event::Leaving { socket, room: room.clone() }, Event::Left { socket, room }],
        ["closes"] => Event::Closed { socket, code: None },
        ["says", _] => Event::Say { socket, room, text, last: false },
        ["says", "last", _] => Event::Say { socket, room, text, last: true },
        ["ok", _] => answered(None),
        ["unavailable", _] => answered(Some("unavailable")),
        ["gets", _] => Event::Received { socket, room, text },
        ["sees", "join", _] => Event::Presence { socket, room, change: Change::Join, member: text },
        ["sees", "leave", _] => Event::Presence { socket, room, change: Change::Leave, member: text },
        ["gap"] => Event::Gap { socket, room },
        ["away"] => Event::Away { socket },
        ["is", "mute"] => Event::Listed { node: number(), room, members: None, count: 0 },
        ["counts", count] => {
            let count: u64 = count.parse().unwrap();
            Event::Listed { node: number(), room, members: Some(vec!["a".to_owned()]), count }
        }
        ["lists", ..] => {
            let members: Vec<String> = words[2..].iter().map(|&id| id.to_owned()).collect();
            Event::Listed { node: number(), room, count: members.len() as u64, members: Some(members) }
        }
        ["tries"] => Event::Joining { socket, room },
        ["fails"] => Event::NotJoined { socket, room, code: "unavailable".to_owned() },
        ["shows", ..] => {
            let member = |word: &&str| {
                let (id, joined_at) = word.split_once('@').unwrap();
                (id.to_owned(), joined_at.parse().unwrap())
            };
            let members = words[2..].iter().map(member).collect();
            Event::Watched { node: number(), room, asked: at - 1000, members }
        }
        [kind, "begins"] => Event::Fault { kind: kind.to_owned(), detail: String::new(), node: Some(number()) },
        [kind, "ends"] => Event::FaultEnded { kind: kind.to_owned(), node: Some(number()) },
        ["freezes"] => Event::Fault { kind: freeze, detail: String::new(), node: Some(number()) },
        ["thaws"] => Event::FaultEnded { kind: freeze, node: Some(number()) },
        [] if words[0] == "end" => Event::End,
        [] => Event::Calm,
        _ => panic!("no such line: {words:?}"),
    };
    vec![event]
}

/// Two members of two nodes, of which each has received the join of the one that came later.
const PAIR: &str = "
    a on 0
    b on 1
    a sees join b
";

fn finds(script: &str, expected: &[Kind]) {
    let report = check(&history(&format!("{PAIR}{script}")));
    let found: Vec<Kind> = report.faults.iter().map(|fault| fault.kind).collect();
    assert_eq!(found, expected, "{script}\n{:#?}", report.faults);
}

/// A message that both receive.
fn passes(text: &str) -> String {
    format!("a says {text}\na ok {text}\na gets {text}\nb gets {text}\n")
}

#[test]
fn a_history_without_a_fault_has_none() {
    let all = [&passes("x"), &passes("y"), "calm\n0 lists a b\n1 lists a b\n", &passes("last z")].concat();
    finds(&all.replace("ok last", "ok").replace("gets last", "gets"), &[]);
}

#[test]
fn order_is_what_two_members_agree_on() {
    let says = "a says x\nb says y\na ok x\nb ok y\n";
    finds(&format!("{says} a gets x\na gets y\nb gets y\nb gets x"), &[Kind::Order]);
    finds(&format!("{says} a gets x\na gets y\nb gets x\nb gets y"), &[]);
    // A gap is no excuse.
    finds(&format!("{says} a gets x\na gets y\nb gets y\nb gap\nb gets x"), &[Kind::Order]);
}

#[test]
fn order_is_that_no_message_comes_twice_or_behind_a_later_one() {
    finds(&format!("{} b gets x", passes("x")), &[Kind::Order]);
    let late = "a says x\na ok x\nb says y\nb ok y\n";
    // They agree, but y was sent after the OK of x.
    finds(&format!("{late} a gets y\na gets x\nb gets y\nb gets x"), &[Kind::Order, Kind::Order]);
    let own = "a says x\na says y\n a ok x\na ok y\n";
    finds(&format!("{own} a gets y\na gets x\nb gets y\nb gets x"), &[Kind::Order, Kind::Order]);
}

#[test]
fn a_hole_is_an_ok_message_that_is_missing_between_two_frames() {
    let missed = "a says x\na ok x\na gets x\n";
    finds(&[&passes("w"), missed, &passes("y")].concat(), &[Kind::Hole]);
    finds(&[&passes("w"), missed, "b gap\n", &passes("y")].concat(), &[]);
    // The gap stands at another place.
    finds(&[&passes("w"), missed, &passes("y"), "b gap\n", &passes("z")].concat(), &[Kind::Hole]);
    // A frame of presence bounds the gap as well.
    finds(&[&passes("w"), "b gap\nb sees join a\n", missed, &passes("y")].concat(), &[Kind::Hole]);
    // No one else received it, so that only the times tell its place.
    finds(&[&passes("w"), "a says x\na ok x\na gap\n", &passes("y")].concat(), &[Kind::Hole]);
    // Behind a join, nothing is missing before the first frame; between two memberships all is.
    finds(&["b leaves\na sees leave b\nb joins\na sees join b\n", missed, &passes("y")].concat(), &[Kind::Hole]);
    finds(&["b leaves\na sees leave b\n", missed, "b joins\na sees join b\n", &passes("y")].concat(), &[]);
    // A late frame begins no membership.
    finds(&["b leaves\na sees leave b\n", &passes("w"), missed].concat(), &[]);
}

#[test]
fn the_place_of_a_missing_message_is_known_from_answers_and_other_members() {
    // x was sent after the OK of w, and the gap of b stands before w.
    finds(
        &["a says w\na ok w\na gets w\na says x\na ok x\na gap\nb gap\nb gets w\n", &passes("y")].concat(),
        &[Kind::Hole],
    );
    // Sent at once, and received by one in this order: the gap of the other stands before, between or behind.
    let once = "a says w\na says x\na says y\na ok w\na ok x\na ok y\na gets w\na gets x\na gets y\n";
    finds(&[once, "b gap\nb gets w\nb gets y\n"].concat(), &[Kind::Hole]);
    finds(&[once, "b gets w\nb gap\nb gets y\n"].concat(), &[]);
    finds(&[once, "b gets w\nb gets y\nb gap\n"].concat(), &[Kind::Hole]);
}

#[test]
fn a_message_that_is_not_ok_is_received_by_all_or_by_none() {
    let unknown = "a says x\na unavailable x\n";
    finds(&[&passes("w"), unknown, "a gets x\n", &passes("y")].concat(), &[Kind::Partial]);
    finds(&[&passes("w"), unknown, &passes("y")].concat(), &[]);
    finds(&[&passes("w"), unknown, "a gets x\nb gets x\n", &passes("y")].concat(), &[]);
    finds(&[&passes("w"), unknown, "a gets x\nb gap\n", &passes("y")].concat(), &[]);
}

#[test]
fn a_tail_is_an_ok_message_behind_the_last_frame() {
    finds(&[&passes("w"), "a says x\na ok x\na gets x\n"].concat(), &[Kind::Tail]);
    finds(&[&passes("w"), "a says x\na ok x\na gets x\nb gap\n"].concat(), &[]);
    finds(&[&passes("w"), "a says x\na ok x\na gets x\nb closes\na sees leave b\n"].concat(), &[]);
}

#[test]
fn a_speaker_is_silent_without_its_message_or_a_later_gap() {
    finds("a says x\na ok x\nb gets x\n", &[Kind::Silent]);
    finds("a says x\na gap\na ok x\nb gets x\n", &[Kind::Silent]);
    finds("a says x\na ok x\na gap\nb gets x\n", &[]);
    finds("a says x\na unavailable x\na gap\nb gets x\n", &[]);
    // It has left before the answer.
    finds("a says x\na leaves\na ok x\nb gets x\nb sees leave a\n", &[]);
}

#[test]
fn a_silence_is_told_soon() {
    let missed = [&passes("w"), "a says x\na ok x\na gets x\n"].concat();
    finds(&format!("{missed} wait 20\nb gap"), &[Kind::Silent]);
    finds(&format!("{missed} wait 5\nb away\nwait 20\nb gap"), &[]);
    finds(&format!("{missed} 1 freezes\nwait 20\n1 thaws\nb gap"), &[]);
    // A gap just before stands for it: the first frame behind is the bound, however late the next gap.
    finds(&format!("{} b gap\na says x\na ok x\na gets x\n {} wait 20\nb gap", passes("w"), passes("y")), &[]);
    finds("b away\nwait 20\n", &[Kind::Silent]);
    finds("b leaves\nb joining\nb away\nwait 20\nb joined\n", &[]);
}

#[test]
fn lists_name_the_members_and_no_ghosts() {
    finds("calm\n0 lists a b\n1 lists b a", &[]);
    finds("calm\n0 lists a b c", &[Kind::Ghost]);
    finds("b closes\na sees leave b\ncalm\n0 lists a b", &[Kind::Ghost]);
    finds("calm\n1 lists a", &[Kind::Missing]);
    finds("b closes\na sees leave b\ncalm\n1 counts 2", &[Kind::Ghost]);
}

#[test]
fn a_member_that_is_gone_is_listed_again_only_by_a_join() {
    let late =
        "c on 0\na sees join c\nb sees join c\nc closes\na sees leave c\nb sees leave c\nwait 4\n0 shows a@1 b@2\n";
    let found = "1 shows a@1 b@2 c@3\n1 shows a@1 b@2 c@3";
    finds(&format!("{late} {found}"), &[Kind::Ghost]);
    finds(&format!("{late} 0 hold begins\n {found}\n0 hold ends"), &[Kind::Ghost]);
    // Redis may have lost the leave.
    finds(&format!("{late} 0 older begins\n {found}\n0 older ends"), &[]);
    finds(&format!("0 older begins\n0 older ends\n {late} {found}"), &[]);
    finds(&format!("0 older begins\n0 older ends\nwait 10\n {late} {found}"), &[Kind::Ghost]);
    // A join that is not answered may be under way, also after its client has gone.
    let tried =
        "c on 0\na sees join c\nb sees join c\nc leaves\na sees leave c\nb sees leave c\n0 shows a@1 b@2\nc tries\n";
    finds(&format!("{tried} 0 shows a@1 b@2\n {found}"), &[]);
    finds(&format!("{tried} c closes\n0 shows a@1 b@2\n {found}"), &[]);
    finds(&format!("{tried} c closes\nwait 4\n0 shows a@1 b@2\n {found}"), &[Kind::Ghost]);
    finds(&format!("{tried} c fails\nwait 1\n0 shows a@1 b@2\n {found}"), &[Kind::Ghost]);
}

#[test]
fn the_time_of_joining_does_not_go_back() {
    finds("0 shows a@1 b@7\nwait 1\n1 shows a@1 b@2\n1 shows a@1 b@2", &[Kind::Ghost]);
    finds("0 shows a@1 b@2\nwait 1\n1 shows a@1 b@7\n1 shows a@1 b@7", &[]);
    finds("0 shows a@1 b@7\n0 flush begins\n1 shows a@1 b@2\n0 flush ends", &[]);
}

#[test]
fn joins_and_leaves_balance_outside_gaps() {
    finds("b closes", &[Kind::Unbalanced]);
    finds("b closes\na gap", &[]);
    finds("a sees leave b", &[Kind::Unbalanced]);
    finds("a sees leave b\na sees join b", &[]);
    finds("a sees join b", &[Kind::Unbalanced]);
    finds("a gap\na sees join b", &[]);
    finds("b leaves\nb joins\na sees leave b", &[Kind::Unbalanced]);
    finds("c on 0\nb sees join c", &[Kind::Unbalanced]);
    finds("end\nb closes\na sees leave b", &[]);
    // The node of b was reaped before c came, and the client of b goes later.
    finds("a sees leave b\nc on 0\na sees join c\nb closes", &[]);
    finds("c on 0\na sees join c\nb closes\na sees leave b", &[Kind::Unbalanced]);
    // What happens behind the first frame after a gap is not missed.
    finds(&["a gap\n", &passes("x"), "b leaves"].concat(), &[Kind::Unbalanced]);
}

#[test]
fn after_the_calm_all_speak_and_all_receive() {
    finds("calm\na says last x\na ok x\na gets x", &[Kind::Mute]);
    finds("calm\na says last x\na unavailable x", &[Kind::Mute]);
    finds("calm\na says last x\na gets x\nb gets x", &[Kind::Mute]);
    finds("a says x\na gets x\nb gets x", &[Kind::Mute]);
    finds("calm\n0 is mute", &[Kind::Mute]);
}

#[test]
fn a_report_counts_faults_by_kind() {
    let report = check(&history(&[PAIR, &passes("x"), "b gets x\nb gets x\n0 lists a b c"].concat()));
    let expected = "found: order 2, hole 0, partial 0, tail 0, silent 0, ghost 1, missing 0, unbalanced 0, mute 0";
    assert_eq!(report.summary_of_all(), expected);
    // The list is the eleventh line.
    assert_eq!(report.summary_of(Duration::from_millis(1000), Duration::MAX), "ghost 1");
}

#[test]
fn a_history_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.jsonl");
    let recorder = Recorder::create(&path);
    let expected = history(&[PAIR, &passes("x"), "a gap\na away\nb closes\ncalm\n0 lists a\n0 is mute"].concat());
    expected.iter().for_each(|record| recorder.record(record.event.clone()));
    recorder.flush();
    let events = read(&path).into_iter().map(|record| record.event);
    assert!(events.eq(expected.into_iter().map(|record| record.event)));
}

/// A build without a mechanism is made for the soak alone, and rarely: nothing else finds a patch that applies no more.
#[test]
fn the_mutations_apply() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let patches: Vec<_> = std::fs::read_dir(root.join("tests/soak/mutations")).unwrap().collect();
    assert_eq!(patches.len(), 4);
    for patch in patches {
        let patch = patch.unwrap().path();
        let mut command = std::process::Command::new("git");
        let checked = command.current_dir(root).args(["apply", "--check"]).arg(&patch).output().unwrap();
        let words = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{}: {words}", patch.display());
    }
}

#[test]
fn a_schedule_depends_on_its_seed_alone_and_has_each_kind() {
    let lines = |seed| -> Vec<String> {
        let steps = schedule(seed, 3, Duration::from_secs(180), &KINDS);
        steps.iter().map(ToString::to_string).collect()
    };
    assert_eq!(lines(7), lines(7));
    assert_ne!(lines(7), lines(8));
    for seed in 1..20 {
        let steps = schedule(seed, 3, Duration::from_secs(180), &KINDS);
        for kind in KINDS {
            assert!(steps.iter().any(|step| step.fault.kind() == kind), "seed {seed} has no {kind}");
        }
    }
}
