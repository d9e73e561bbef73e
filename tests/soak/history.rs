//! The history of a soak: all that its clients sent and received and the faults, as JSON lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Most records of a history; 200 MB of text. More end the soak.
const RECORDS: u64 = 2_000_000;

/// One line. The lines of one socket stand in the order in which its client sent and received.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Microseconds since the start.
    pub(crate) at: u64,
    #[serde(flatten)]
    pub(crate) event: Event,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The first line.
    Soak {
        seed: u64,
        rooms: Vec<String>,
        presence: Vec<String>,
    },
    /// A fault begins. `node` is the one that it hits, unless it hits all.
    Fault {
        kind: String,
        detail: String,
        node: Option<usize>,
    },
    FaultEnded {
        kind: String,
        node: Option<usize>,
    },
    /// A socket of a node is open; sockets have numbers, connections have ids.
    Open {
        socket: usize,
        node: usize,
        id: String,
    },
    /// A `roomAdd` is sent.
    Joining {
        socket: usize,
        room: String,
    },
    /// The node confirms the membership.
    Joined {
        socket: usize,
        room: String,
    },
    /// The node answers a `roomAdd` with an error.
    NotJoined {
        socket: usize,
        room: String,
        code: String,
    },
    /// A `roomLeave` is sent.
    Leaving {
        socket: usize,
        room: String,
    },
    /// The node confirms that the membership has ended.
    Left {
        socket: usize,
        room: String,
    },
    /// A `say` is sent. Texts are unique. The `last` ones are sent after the calm.
    Say {
        socket: usize,
        room: String,
        text: String,
        last: bool,
    },
    /// A `say` is answered: with the code of the error, unless it is OK.
    Answered {
        socket: usize,
        text: String,
        code: Option<String>,
    },
    Received {
        socket: usize,
        room: String,
        text: String,
    },
    Presence {
        socket: usize,
        room: String,
        change: Change,
        member: String,
    },
    Gap {
        socket: usize,
        room: String,
    },
    Away {
        socket: usize,
    },
    /// The client begins to close its socket.
    Closing {
        socket: usize,
    },
    /// A socket has ended.
    Closed {
        socket: usize,
        code: Option<u16>,
    },
    /// The calm after the last fault is over: no client joins, leaves or opens a socket from here on.
    Calm,
    /// The members that a node listed during the soak, and when each has joined; `asked` in microseconds since the start.
    Watched {
        node: usize,
        room: String,
        asked: u64,
        members: BTreeMap<String, u64>,
    },
    /// The members that a node lists after the calm; `None` if it did not answer.
    Listed {
        node: usize,
        room: String,
        members: Option<Vec<String>>,
        count: u64,
    },
    /// Behind it the soak closes its sockets one by one, which is in no promise.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    Join,
    Leave,
}

/// Writes a history.
pub(crate) struct Recorder {
    started: Instant,
    written: Mutex<Written>,
}

struct Written {
    file: BufWriter<File>,
    records: u64,
    last: LastMessages,
}

/// Knows whether the last messages have arrived everywhere, so that the soak can end.
#[derive(Default)]
struct LastMessages {
    /// Sockets by their rooms.
    members: BTreeMap<String, BTreeSet<usize>>,
    said: BTreeSet<String>,
    answered: usize,
    received: usize,
}

impl LastMessages {
    fn note(&mut self, event: &Event) {
        match event {
            Event::Joined { socket, room } => {
                self.members.entry(room.clone()).or_default().insert(*socket);
            }
            Event::Leaving { socket, room } => {
                self.members.entry(room.clone()).or_default().remove(socket);
            }
            Event::Closing { socket } | Event::Closed { socket, .. } => {
                self.members.values_mut().for_each(|sockets| _ = sockets.remove(socket));
            }
            Event::Say { text, last: true, .. } => drop(self.said.insert(text.clone())),
            Event::Answered { text, .. } => self.answered += usize::from(self.said.contains(text)),
            Event::Received { text, .. } => self.received += usize::from(self.said.contains(text)),
            _ => {}
        }
    }

    fn have_arrived(&self) -> bool {
        let said: usize = self.members.values().map(BTreeSet::len).sum();
        let received: usize = self.members.values().map(|sockets| sockets.len() * sockets.len()).sum();
        self.said.len() >= said && self.answered >= said && self.received >= received
    }
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> Self {
        let file = BufWriter::new(File::create(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
        Self {
            started: Instant::now(),
            written: Mutex::new(Written { file, records: 0, last: LastMessages::default() }),
        }
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Microseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// Writes a line with the present time.
    pub(crate) fn record(&self, event: Event) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that times rise from line to line.
        let record = Record { at: self.now(), event };
        written.records += 1;
        written.last.note(&record.event);
        assert!(written.records <= RECORDS, "a history has at most {RECORDS} records");
        serde_json::to_writer(&mut written.file, &record).expect("a record is JSON, and the disk has room");
        written.file.write_all(b"\n").expect("the disk has room");
    }

    /// Whether each member has said its last messages, and all members have received them.
    pub(crate) fn has_all_last(&self) -> bool {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).last.have_arrived()
    }

    pub(crate) fn flush(&self) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.file.flush().expect("the disk has room");
    }
}

/// Reads a history.
pub(crate) fn read(path: &Path) -> Vec<Record> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = BufReader::new(file).lines().enumerate();
    lines
        .map(|(number, line)| {
            let line = line.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("line {}: {error}: {line}", number + 1))
        })
        .collect()
}
