//! What clients go on doing while something fails: they chat, call connections of the other node and use the cache.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phalanx_testkit::tell;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{BACK, apply, until};
use crate::client::{Socket, post_json};

/// How often each client asks for something.
const PACE: Duration = Duration::from_millis(20);

/// Ten times what a call that meets a Redis that does not answer may take.
const IN_TIME: Duration = Duration::from_secs(20);

/// Where the clients of a load talk.
pub(super) const ROOM: &str = "otherRoom";

const KINDS: [&str; 3] = ["apply", "cache", "chat"];

/// Clients of two nodes: on each, one that calls, one that uses the cache, one that speaks and one that listens.
pub(super) struct Load {
    shared: Arc<Shared>,
    asking: JoinSet<()>,
    listening: JoinSet<(usize, Vec<Heard>)>,
    over: watch::Sender<bool>,
}

struct Shared {
    stop: AtomicBool,
    done: Mutex<Vec<Done>>,
    /// The last message of each speaker that each listener heard.
    last: Mutex<[[Option<u64>; 2]; 2]>,
}

/// One call and what became of it.
struct Done {
    kind: &'static str,
    node: usize,
    number: u64,
    began: Instant,
    ended: Instant,
    /// The code of its error; empty if it has none.
    code: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    Said { speaker: usize, number: u64 },
    Gap,
}

impl Load {
    pub(super) async fn start(addrs: [SocketAddr; 2]) -> Self {
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), done: Mutex::default(), last: Mutex::default() });
        let (mut asking, mut listening, over) = (JoinSet::new(), JoinSet::new(), watch::Sender::new(false));
        for (node, addr) in addrs.into_iter().enumerate() {
            let far = Socket::connect(addrs[1 - node]).await;
            let id = far.id();
            asking.spawn(shared.clone().ask("apply", node, async move |_| {
                let _ = &far; // stays connected
                apply(addr, &id, "set", json!(["k", 1])).await.error_code()
            }));
            asking.spawn(shared.clone().ask("cache", node, async move |_| {
                let body = json!({ "key": format!("load{node}"), "value": "thing" }).to_string();
                post_json(addr, "/api/cacheTest", &body).await.error_code()
            }));
            let listener = Socket::join(addr, ROOM).await;
            listening.spawn(shared.clone().listen(node, listener, over.subscribe()));
        }
        for (node, addr) in addrs.into_iter().enumerate() {
            let speaker = Arc::new(tokio::sync::Mutex::new(Socket::join(addr, ROOM).await));
            asking.spawn(shared.clone().ask("chat", node, async move |number| {
                let said = json!({ "event": "say", "room": ROOM, "message": { "speaker": node, "number": number },
                    "messageId": number });
                let answer = speaker.lock().await.ask_named(&said).await;
                answer["error"]["code"].as_str().unwrap_or_default().to_owned()
            }));
        }
        Self { shared, asking, listening, over }
    }

    /// Waits until everything works again on both nodes, and says how long that took since then.
    pub(super) async fn recovered(&self, fault: &str, since: Instant) {
        for kind in KINDS {
            for node in 0..2 {
                let first = || {
                    let done = self.shared.done();
                    let mut later = done.iter().filter(|it| it.kind == kind && it.node == node && it.began >= since);
                    later.find(|it| it.code.is_empty()).map(|it| (it.number, it.ended))
                };
                until(&format!("{kind} works again on node {node}"), BACK, async || first().is_some()).await;
                let Some((number, ended)) = first() else { unreachable!("it was there") };
                tell(format_args!("{fault}: {kind} of node {node} works again after {:?}", ended - since));
                if kind == "chat" {
                    let heard = || self.shared.last().iter().all(|last| last[node].is_some_and(|it| it >= number));
                    until("what is said is heard on both nodes", BACK, async || heard()).await;
                }
            }
        }
        tell(format_args!("{fault}: everything works again within {:?}", since.elapsed()));
    }

    /// Ends all clients once they have their answers. Each came in time, as an answer or as one of these errors, and what
    /// was said with `OK` was heard, in one order, or a gap was told in its place.
    pub(super) async fn finish(mut self, fault: &str, errors: &[&str]) {
        self.shared.stop.store(true, Relaxed);
        while let Some(ended) = self.asking.join_next().await {
            ended.unwrap();
        }
        self.over.send_replace(true);
        let mut heard = self.listening.join_all().await;
        heard.sort();
        let done = std::mem::take(&mut *self.shared.done());
        for kind in KINDS {
            let all: Vec<&Done> = done.iter().filter(|it| it.kind == kind).collect();
            let mut codes = BTreeMap::<&str, usize>::new();
            for it in &all {
                *codes.entry(&it.code).or_default() += 1;
                assert!(it.code.is_empty() || errors.contains(&&*it.code), "{fault}: {kind} got {}", it.code);
            }
            let slowest = all.iter().map(|it| it.ended - it.began).max().unwrap();
            tell(format_args!("{fault}: {} times {kind}, by error {codes:?}, the slowest took {slowest:?}", all.len()));
            assert!(slowest < IN_TIME, "{fault}: {kind} took {slowest:?}");
        }
        for (listener, heard) in &heard {
            for speaker in 0..2 {
                let said = done.iter().filter(|it| it.kind == "chat" && it.node == speaker && it.code.is_empty());
                let said: Vec<u64> = said.map(|it| it.number).collect();
                check(heard, speaker, &said).unwrap_or_else(|wrong| {
                    panic!("{fault}: listener {listener}, speaker {speaker}: {wrong}");
                });
            }
        }
        let both = |at: usize, other: usize| -> Vec<Heard> {
            let other: std::collections::BTreeSet<_> = heard[other].1.iter().collect();
            heard[at].1.iter().filter(|it| **it != Heard::Gap && other.contains(it)).copied().collect()
        };
        assert!(both(0, 1) == both(1, 0), "{fault}: one order for everybody");
    }
}

/// All that was said is heard in order, once; what is missing lies where a gap was told.
fn check(heard: &[Heard], speaker: usize, said: &[u64]) -> Result<(), String> {
    let mut said = said.iter().copied().peekable();
    let (mut gap, mut last) = (false, None);
    for it in heard {
        match *it {
            Heard::Gap => gap = true,
            Heard::Said { speaker: by, number } if by == speaker => {
                if last.replace(number).is_some_and(|before| before >= number) {
                    return Err(format!("{number} is heard after {last:?}"));
                }
                while let Some(missing) = said.next_if(|it| *it < number) {
                    if !gap {
                        return Err(format!("{missing} was not heard before {number}, and no gap was told"));
                    }
                }
                said.next_if_eq(&number);
                gap = false;
            }
            Heard::Said { .. } => {}
        }
    }
    match said.next() {
        Some(missing) => Err(format!("{missing} was not heard in the end")),
        None => Ok(()),
    }
}

impl Shared {
    /// Asks again and again; the call that runs when it is to stop is waited for.
    async fn ask(self: Arc<Self>, kind: &'static str, node: usize, mut call: impl AsyncFnMut(u64) -> String) {
        let mut ticks = interval(PACE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0.. {
            ticks.tick().await;
            if self.stop.load(Relaxed) {
                return;
            }
            let began = Instant::now();
            let code = call(number).await;
            self.done().push(Done { kind, node, number, began, ended: Instant::now(), code });
        }
    }

    /// Listens until nobody speaks any more and it has heard the last that each speaker said.
    async fn listen(
        self: Arc<Self>,
        node: usize,
        mut socket: Socket,
        mut over: watch::Receiver<bool>,
    ) -> (usize, Vec<Heard>) {
        let mut heard = Vec::new();
        while !*over.borrow() || !self.all_heard(node) {
            let frame = tokio::select! {
                frame = socket.read() => frame,
                _ = over.changed() => continue,
            };
            match frame["context"].as_str() {
                Some("user") => {
                    let of = |name: &str| frame["message"][name].as_u64().unwrap();
                    let (speaker, number) = (of("speaker") as usize, of("number"));
                    heard.push(Heard::Said { speaker, number });
                    self.last()[node][speaker] = Some(number);
                }
                Some("api") => heard.push(Heard::Gap),
                _ => {}
            }
        }
        (node, heard)
    }

    /// Whether a listener heard the last that was said with `OK`.
    fn all_heard(&self, node: usize) -> bool {
        let done = self.done();
        let said = |speaker| done.iter().rev().find(|it| it.kind == "chat" && it.node == speaker && it.code.is_empty());
        (0..2).all(|speaker| said(speaker).is_none_or(|it| self.last()[node][speaker] >= Some(it.number)))
    }

    fn done(&self) -> std::sync::MutexGuard<'_, Vec<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> std::sync::MutexGuard<'_, [[Option<u64>; 2]; 2]> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[test]
fn what_is_missing_without_a_gap_is_found() {
    let said = |number| Heard::Said { speaker: 0, number };
    for (heard, expected) in [
        (vec![said(1), said(2), said(3)], true),
        (vec![said(1), said(3)], false),
        (vec![said(1), Heard::Gap, said(3)], true),
        (vec![said(1), said(3), Heard::Gap], false),
        (vec![said(1), said(2), said(2), said(3)], false),
        (vec![said(2), said(1), said(3)], false),
        (vec![said(1), said(2)], false),
        (vec![said(0), said(1), said(2), said(3)], true), // that one was not told to be OK
    ] {
        let heard_by = heard.len();
        assert_eq!(check(&heard, 0, &[1, 2, 3]).is_ok(), expected, "{heard_by} heard");
    }
}
