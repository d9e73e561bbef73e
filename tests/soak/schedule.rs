//! The faults of a soak: a pure function of its seed.

use std::fmt;
use std::time::Duration;

use phalanx_testkit::{Direction, Flow};

/// Numbers that depend on nothing but a seed: SplitMix64, which is the same in each release.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn is_one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.next() % (range.end - range.start))
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// A fault of the network between one node and Redis.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LinkFault {
    /// Each read is delayed.
    Delay(Duration),
    /// All connections are closed, and new ones at once.
    Cut,
    /// Packets are dropped, for good on the connections that are open.
    Silence,
    /// Everything is held, and delivered late.
    Pause,
    /// One direction of one flow is held, and delivered late.
    Hold(Flow, Direction),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Link(usize, LinkFault),
    /// The answers of one node's publishing flow are held, while another node's subscription comes and goes; then the flow
    /// is closed, before that node has received anything newer.
    Answers {
        publisher: usize,
        subscriber: usize,
        times: u32,
    },
    /// What one node published, and has given up, arrives after another node has subscribed again, and before anything
    /// newer does.
    LateSays {
        publisher: usize,
        subscriber: usize,
    },
    /// Joins of one node arrive after it has given them up.
    LateJoins(usize),
    /// Another server is promoted; the old one becomes its replica and closes no connection.
    SwitchOver,
    /// The data become those of `age` before; with or without a break of all connections.
    Older {
        age: Duration,
        breaks: bool,
    },
    /// All data are deleted, and no connection is closed.
    Flush,
    /// No memory is left for writes.
    Full,
    /// Commands wait: all of them, or those that write.
    ClientPause {
        all: bool,
    },
    /// Redis is killed, and comes back with its data or without them.
    RedisKill {
        empty: bool,
    },
    RedisFreeze,
    NodeKill(usize),
    NodeFreeze(usize),
    /// A node is stopped properly and started in the new release, or in the last one. Not seeded: see `upgrade.rs`.
    Roll {
        node: usize,
        is_new: bool,
    },
}

/// The time that a node needs to subscribe again.
pub(crate) const RETURN: Duration = Duration::from_millis(1500);

/// The names of the kinds, for the summary.
pub(crate) const KINDS: [&str; 17] = [
    "delay",
    "cut",
    "silence",
    "pause",
    "hold",
    "answers",
    "late_says",
    "late_joins",
    "switch",
    "older",
    "flush",
    "full",
    "client_pause",
    "redis_kill",
    "redis_freeze",
    "kill",
    "freeze",
];

impl Fault {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Link(_, LinkFault::Delay(_)) => "delay",
            Self::Link(_, LinkFault::Cut) => "cut",
            Self::Link(_, LinkFault::Silence) => "silence",
            Self::Link(_, LinkFault::Pause) => "pause",
            Self::Link(_, LinkFault::Hold(..)) => "hold",
            Self::Answers { .. } => "answers",
            Self::LateSays { .. } => "late_says",
            Self::LateJoins(_) => "late_joins",
            Self::SwitchOver => "switch",
            Self::Older { .. } => "older",
            Self::Flush => "flush",
            Self::Full => "full",
            Self::ClientPause { .. } => "client_pause",
            Self::RedisKill { .. } => "redis_kill",
            Self::RedisFreeze => "redis_freeze",
            Self::NodeKill(_) => "kill",
            Self::NodeFreeze(_) => "freeze",
            Self::Roll { .. } => "roll",
        }
    }

    /// The node that it hits, unless it hits all.
    pub(crate) fn node(&self) -> Option<usize> {
        match self {
            Self::Link(node, _) | Self::LateJoins(node) | Self::NodeKill(node) | Self::NodeFreeze(node) => Some(*node),
            Self::Roll { node, .. } => Some(*node),
            Self::Answers { publisher, .. } | Self::LateSays { publisher, .. } => Some(*publisher),
            _ => None,
        }
    }
}

/// A fault, and at most one of another node's network beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// After the start.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
    pub(crate) beside: Option<Fault>,
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.1} s for {:.1} s: {:?}", self.at.as_secs_f64(), self.lasts.as_secs_f64(), self.fault)?;
        if let Some(beside) = self.beside {
            write!(out, ", beside {beside:?}")?;
        }
        Ok(())
    }
}

/// The faults of these kinds that begin within this time. Each kind comes once before one comes again.
pub(crate) fn schedule(seed: u64, nodes: usize, within: Duration, kinds: &[&str]) -> Vec<Step> {
    let mut random = Random::new(seed);
    let (mut steps, mut deck) = (Vec::new(), Vec::new());
    let mut at = random.millis(2000..4000);
    while at < within && !kinds.is_empty() {
        let kind = deck.pop().unwrap_or_else(|| {
            deck = kinds.to_vec();
            random.shuffle(&mut deck);
            deck.pop().expect("there are kinds")
        });
        let (fault, lasts) = fault(kind, &mut random, nodes);
        let beside =
            (kinds.len() == KINDS.len() && random.is_one_in(4)).then(|| beside(&fault, &mut random, nodes)).flatten();
        steps.push(Step { at, lasts, fault, beside });
        at += lasts + random.millis(500..3000);
    }
    steps
}

fn fault(kind: &str, random: &mut Random, nodes: usize) -> (Fault, Duration) {
    let node = random.below(nodes);
    let other = |random: &mut Random| (node + 1 + random.below(nodes - 1)) % nodes;
    match kind {
        "delay" => (Fault::Link(node, LinkFault::Delay(random.millis(10..300))), random.millis(2000..5000)),
        "cut" => (Fault::Link(node, LinkFault::Cut), random.millis(200..9000)),
        "silence" => (Fault::Link(node, LinkFault::Silence), random.millis(1000..8000)),
        "pause" => (Fault::Link(node, LinkFault::Pause), random.millis(500..6000)),
        "hold" => (Fault::Link(node, hold(random)), random.millis(500..6000)),
        "answers" => {
            let subscriber = other(random);
            let times = random.below(3) as u32;
            (Fault::Answers { publisher: node, subscriber, times }, random.millis(500..4000) + RETURN)
        }
        "late_says" => (Fault::LateSays { publisher: node, subscriber: other(random) }, random.millis(4000..5000)),
        "late_joins" => (Fault::LateJoins(node), random.millis(4500..6000)),
        // As long as the promise that all is back.
        "switch" => (Fault::SwitchOver, random.millis(5000..8000)),
        "older" => {
            let (age, breaks) = (random.millis(1000..6000), random.is_one_in(2));
            (Fault::Older { age, breaks }, age + random.millis(2000..4000))
        }
        "flush" => (Fault::Flush, random.millis(2000..4000)),
        "full" => (Fault::Full, random.millis(1000..7000)),
        "client_pause" => (Fault::ClientPause { all: random.is_one_in(2) }, random.millis(500..6000)),
        "redis_kill" => (Fault::RedisKill { empty: random.is_one_in(2) }, random.millis(200..6000)),
        "redis_freeze" => (Fault::RedisFreeze, random.millis(500..8000)),
        // Longer than it takes to reap: leaves of a node that dies as Redis loses its data are announced by none.
        "kill" => (Fault::NodeKill(node), random.millis(10_000..12_000)),
        "freeze" => (Fault::NodeFreeze(node), random.millis(500..9000)),
        other => panic!("no kind {other}"),
    }
}

fn hold(random: &mut Random) -> LinkFault {
    let flow = [Flow::Publishing, Flow::Publishing, Flow::Subscribing, Flow::Commands][random.below(4)];
    LinkFault::Hold(flow, [Direction::ToServer, Direction::ToClient][random.below(2)])
}

/// A fault of the network of a node that this one spares.
fn beside(fault: &Fault, random: &mut Random, nodes: usize) -> Option<Fault> {
    if matches!(fault, Fault::Answers { .. } | Fault::LateSays { .. } | Fault::LateJoins(_) | Fault::NodeKill(_)) {
        return None;
    }
    let node = match fault.node() {
        Some(hit) => (hit + 1 + random.below(nodes - 1)) % nodes,
        None => random.below(nodes),
    };
    let link = match random.below(4) {
        0 => LinkFault::Delay(random.millis(10..300)),
        1 => LinkFault::Pause,
        _ => hold(random),
    };
    Some(Fault::Link(node, link))
}
