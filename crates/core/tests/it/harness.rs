//! A node of its own whose backend fails on demand.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use phalanx_core::backend::{
    Added, Arrival, Backend, BackendError, Bus, Joined, KeptAlive, Left, Letter, Member, Members, Message, Posted,
    Recipient, RoomStore, Subscription,
};
use phalanx_core::config::{Config, Environment};
use phalanx_core::connection::{Attributes, CloseReason, Frame, NewConnection, Next, OutboxLimit};
use phalanx_core::hooks::{Leaving, RoomHook};
use phalanx_core::memory::{MemoryBus, MemoryRooms};
use phalanx_core::registry::Definitions;
use phalanx_core::{ActionError, Connection, ConnectionId, Generation, Node, Seat, Setup, Shutdown, StartError};
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use crate::fake_membership::Mortal;

/// What goes wrong with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It happens, and its answer never comes.
    NoAnswer,
    /// It happens, and looks as if the backend were away.
    AnswerLost,
    /// The backend is away.
    Away,
}

/// A backend whose next steps fail as they are told to.
#[derive(Debug)]
pub(crate) struct Faulty {
    pub(crate) rooms: MemoryRooms,
    bus: MemoryBus,
    faults: Mutex<Vec<(&'static str, Fault)>>,
    /// What is held until letters are sent that nobody waits for.
    unsent: Mutex<Vec<KeptAlive>>,
    /// Says which step has no answer.
    pub(crate) stuck: Notify,
}

impl Faulty {
    /// The next step of that name fails so.
    pub(crate) fn fails(&self, step: &'static str, fault: Fault) {
        self.faults.lock().unwrap().push((step, fault));
    }

    /// How many letters that nobody waits for are not sent.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.lock().unwrap().len()
    }

    /// Sends them.
    pub(crate) fn sends(&self) {
        self.unsent.lock().unwrap().clear();
    }

    /// Something comes from another node.
    pub(crate) async fn brings(&self, letter: Letter) {
        self.bus.appear_as(Generation::random()).await.unwrap();
        self.bus.post(Recipient::Everyone, letter).await.unwrap();
    }

    async fn step<T>(
        &self,
        name: &'static str,
        step: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            faults.iter().position(|(step, _)| *step == name).map(|at| faults.remove(at).1)
        };
        match fault {
            None => step.await,
            Some(Fault::Away) => Err(BackendError::unavailable("away")),
            Some(Fault::AnswerLost) => {
                step.await?;
                Err(BackendError::unavailable("the answer was lost"))
            }
            Some(Fault::NoAnswer) => {
                step.await?;
                self.stuck.notify_one();
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl RoomStore for Faulty {
    async fn add(&self, room: &str, max: usize) -> Result<Added, BackendError> {
        self.rooms.add(room, max).await
    }

    async fn exists(&self, room: &str) -> Result<bool, BackendError> {
        self.rooms.exists(room).await
    }

    async fn list(&self) -> Result<Vec<String>, BackendError> {
        self.rooms.list().await
    }

    async fn close(&self, room: &str) -> Result<Option<u64>, BackendError> {
        self.step("close", self.rooms.close(room)).await
    }

    async fn forget(&self, room: &str, life: u64) -> Result<(), BackendError> {
        self.step("forget", self.rooms.forget(room, life)).await
    }

    async fn join(&self, room: &str, member: &Member, of: Generation) -> Result<Joined, BackendError> {
        self.step("join", self.rooms.join(room, member, of)).await
    }

    async fn leave(&self, room: &str, member: &Member, of: Generation) -> Result<Left, BackendError> {
        self.step("leave", self.rooms.leave(room, member, of)).await
    }

    async fn members(&self, room: &str, max: usize) -> Result<Option<Members>, BackendError> {
        self.rooms.members(room, max).await
    }
}

#[async_trait]
impl Bus for Faulty {
    async fn appear_as(&self, generation: Generation) -> Result<(), BackendError> {
        self.bus.appear_as(generation).await
    }

    async fn publish(&self, message: Message) -> Result<(), BackendError> {
        self.step("publish", self.bus.publish(message)).await
    }

    async fn post(&self, to: Recipient, letter: Letter) -> Result<Posted, BackendError> {
        self.bus.post(to, letter).await
    }

    fn try_post(&self, _to: Recipient, _letter: Letter, alive: KeptAlive) -> Result<(), (Letter, KeptAlive)> {
        self.unsent.lock().unwrap().push(alive);
        Ok(())
    }

    async fn subscribe(&self, room: &Arc<str>) -> Result<Subscription, BackendError> {
        self.bus.subscribe(room).await
    }

    fn receiver(&self) -> Option<mpsc::Receiver<Arrival>> {
        self.bus.receiver()
    }
}

/// Notes why somebody leaves, and waits with some leaves until they may go on.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    leaves: Mutex<Vec<String>>,
    holds: Option<&'static str>,
    pub(crate) asked: Notify,
    pub(crate) goes_on: Notify,
}

impl Noted {
    /// Holds up the leaves that are noted so.
    pub(crate) fn holding(leaves: &'static str) -> Self {
        Self { holds: Some(leaves), ..Self::default() }
    }

    pub(crate) fn leaves(&self) -> Vec<String> {
        self.leaves.lock().unwrap().clone()
    }
}

struct Hook(Arc<Noted>);

#[async_trait]
impl RoomHook for Hook {
    async fn leave(&self, _node: &Node, room: &str, id: &ConnectionId, why: Leaving<'_>) -> Result<(), ActionError> {
        let why = match why {
            Leaving::Asked(_) => "asked",
            Leaving::Ended(_) => "ended",
            Leaving::RoomDestroyed(_) => "destroyed",
            Leaving::NodeDied => "died",
        };
        let noted = format!("{id} {room} {why}");
        let is_held = self.0.holds.is_some_and(|held| noted.ends_with(held));
        self.0.leaves.lock().unwrap().push(noted);
        if is_held {
            self.0.asked.notify_one();
            self.0.goes_on.notified().await;
        }
        Ok(())
    }
}

/// A node with the room `lobby`, which tells who comes and goes.
pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) backend: Arc<Faulty>,
    pub(crate) membership: Arc<Mortal>,
    pub(crate) noted: Arc<Noted>,
    seats: Mutex<Vec<Seat>>,
}

impl World {
    pub(crate) async fn start(noted: Noted) -> Self {
        Self::start_with(noted, |_| {}).await.unwrap()
    }

    pub(crate) async fn start_with(noted: Noted, change: impl FnOnce(&mut Config)) -> Result<Self, StartError> {
        let mut config = Config::default();
        config.rooms.start = vec!["lobby".to_owned()];
        config.rooms.presence = vec!["lobby".to_owned()];
        change(&mut config);
        let backend = Arc::new(Faulty {
            rooms: MemoryRooms::default(),
            bus: MemoryBus::new(100),
            faults: Mutex::default(),
            unsent: Mutex::default(),
            stuck: Notify::new(),
        });
        let (noted, membership) = (Arc::new(noted), Arc::new(Mortal::new()));
        let definitions = Definitions { room_hooks: vec![Arc::new(Hook(noted.clone()))], ..Definitions::default() };
        let setup = Setup {
            app: "test".to_owned(),
            version: "0".to_owned(),
            node_id: "n".to_owned(),
            environment: Environment("test".to_owned()),
            definitions,
            initializers: Vec::new(),
            transports: Vec::new(),
            shutdown: Shutdown::default(),
            backend: Backend {
                rooms: backend.clone(),
                bus: backend.clone(),
                membership: membership.clone(),
                ..Backend::memory(&config)
            },
            config,
        };
        let node = Node::start(setup).await?;
        Ok(Self { node, backend, membership, noted, seats: Mutex::default() })
    }

    pub(crate) async fn connect(&self, id: &str) -> Connection {
        let connection = Connection::new(NewConnection {
            id: ConnectionId::parse(id).unwrap(),
            fingerprint: "f".into(),
            remote: SocketAddr::from(([127, 0, 0, 1], 1)),
            attributes: Attributes::limited(1000),
            connected_at: 0,
            outbox: OutboxLimit { frames: 1000, bytes: 1_000_000 },
        });
        self.seats.lock().unwrap().push(self.node.connections().insert(connection.clone()).unwrap());
        connection
    }

    /// The client of that connection goes.
    pub(crate) async fn goes(&self, connection: &Connection) {
        let seat = {
            let mut seats = self.seats.lock().unwrap();
            let at = seats.iter().position(|seat| seat.connection() == connection).unwrap();
            seats.remove(at)
        };
        seat.remove(CloseReason::ClientLeft).await;
    }

    /// A connection that is in the lobby and has heard that it came.
    pub(crate) async fn member(&self, id: &str) -> Connection {
        let connection = self.connect(id).await;
        self.node.rooms().join(&connection, "lobby").await.unwrap();
        while !heard(&connection).await.contains("\"join\"") {}
        connection
    }

    /// Who is listed in the lobby.
    pub(crate) async fn listed(&self) -> Vec<String> {
        let members = self.backend.rooms.members("lobby", 100).await.unwrap().unwrap_or_default();
        let mut ids: Vec<String> = members.listed.iter().map(|member| member.id.to_string()).collect();
        ids.sort_unstable();
        ids
    }

    /// Waits until those are listed in the lobby.
    pub(crate) async fn lists(&self, ids: &[&str]) {
        eventually("the list is right", async || self.listed().await == ids).await;
    }
}

/// Asks again and again until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), asking).await.expect(what);
}

/// The next frame that waits for a client, once there is one.
pub(crate) async fn heard(connection: &Connection) -> String {
    let mut text = None;
    eventually("something is heard", async || {
        if let Next::Frame(Frame::Text(bytes)) = connection.next() {
            text = Some(String::from_utf8(bytes.to_vec()).unwrap());
        }
        text.is_some()
    })
    .await;
    text.unwrap_or_default()
}

/// What waits for a client by now.
pub(crate) fn unheard(connection: &Connection) -> Vec<String> {
    std::iter::from_fn(|| match connection.next() {
        Next::Frame(Frame::Text(bytes)) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        _ => None,
    })
    .collect()
}
