//! A single node whose backend fails on demand.

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

use crate::fake_membership::FakeMembership;

/// The fault of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The step is done, and its reply never arrives.
    NoReply,
    /// The step is done, and its reply is an error as if the backend were down.
    ReplyLost,
    /// The step is not done, because the backend is down.
    Down,
}

/// A memory backend whose next steps fail as requested.
#[derive(Debug)]
pub(crate) struct FaultyBackend {
    pub(crate) rooms: MemoryRooms,
    bus: MemoryBus,
    faults: Mutex<Vec<(&'static str, Fault)>>,
    /// The guards of messages that `try_post` accepted and that are not sent yet.
    unsent: Mutex<Vec<KeptAlive>>,
    /// Notified when a step without a reply is done.
    pub(crate) stuck: Notify,
}

impl FaultyBackend {
    /// Lets the next step of this name fail.
    pub(crate) fn fail(&self, step: &'static str, fault: Fault) {
        self.faults.lock().unwrap().push((step, fault));
    }

    /// The number of messages that `try_post` accepted and that are not sent yet.
    pub(crate) fn unsent(&self) -> usize {
        self.unsent.lock().unwrap().len()
    }

    /// Sends them.
    pub(crate) fn send_all(&self) {
        self.unsent.lock().unwrap().clear();
    }

    /// Delivers a message as if from another node.
    pub(crate) async fn receive(&self, message: Letter) {
        self.bus.appear_as(Generation::random()).await.unwrap();
        self.bus.post(Recipient::Everyone, message).await.unwrap();
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
            Some(Fault::Down) => Err(BackendError::unavailable("down")),
            Some(Fault::ReplyLost) => {
                step.await?;
                Err(BackendError::unavailable("the reply was lost"))
            }
            Some(Fault::NoReply) => {
                step.await?;
                self.stuck.notify_one();
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl RoomStore for FaultyBackend {
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

    async fn forget(&self, room: &str, incarnation: u64) -> Result<(), BackendError> {
        self.step("forget", self.rooms.forget(room, incarnation)).await
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
impl Bus for FaultyBackend {
    async fn appear_as(&self, generation: Generation) -> Result<(), BackendError> {
        self.bus.appear_as(generation).await
    }

    async fn publish(&self, message: Message) -> Result<(), BackendError> {
        self.step("publish", self.bus.publish(message)).await
    }

    async fn post(&self, to: Recipient, message: Letter) -> Result<Posted, BackendError> {
        self.bus.post(to, message).await
    }

    fn try_post(&self, _to: Recipient, _message: Letter, alive: KeptAlive) -> Result<(), (Letter, KeptAlive)> {
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

/// The calls of the leave hook, by member, room and cause; calls of one kind are blocked until the test resumes them.
#[derive(Debug, Default)]
pub(crate) struct LeaveLog {
    entries: Mutex<Vec<String>>,
    blocks: Option<&'static str>,
    pub(crate) blocked: Notify,
    pub(crate) resume: Notify,
}

impl LeaveLog {
    /// Blocks calls whose entry ends with `suffix`.
    pub(crate) fn blocking(suffix: &'static str) -> Self {
        Self { blocks: Some(suffix), ..Self::default() }
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.entries.lock().unwrap().clone()
    }
}

struct Hook(Arc<LeaveLog>);

#[async_trait]
impl RoomHook for Hook {
    async fn leave(&self, _node: &Node, room: &str, id: &ConnectionId, cause: Leaving<'_>) -> Result<(), ActionError> {
        let cause = match cause {
            Leaving::Asked(_) => "requested",
            Leaving::Ended(_) => "ended",
            Leaving::RoomDestroyed(_) => "destroyed",
            Leaving::NodeDied => "died",
        };
        let entry = format!("{id} {room} {cause}");
        let is_blocked = self.0.blocks.is_some_and(|suffix| entry.ends_with(suffix));
        self.0.entries.lock().unwrap().push(entry);
        if is_blocked {
            self.0.blocked.notify_one();
            self.0.resume.notified().await;
        }
        Ok(())
    }
}

/// A node with the room `lobby`, which has presence.
pub(crate) struct Harness {
    pub(crate) node: Node,
    pub(crate) backend: Arc<FaultyBackend>,
    pub(crate) membership: Arc<FakeMembership>,
    pub(crate) leave_log: Arc<LeaveLog>,
    registrations: Mutex<Vec<Seat>>,
}

impl Harness {
    pub(crate) async fn start(leave_log: LeaveLog) -> Self {
        Self::start_with(leave_log, |_| {}).await.unwrap()
    }

    pub(crate) async fn start_with(leave_log: LeaveLog, change: impl FnOnce(&mut Config)) -> Result<Self, StartError> {
        let mut config = Config::default();
        config.rooms.start = vec!["lobby".to_owned()];
        config.rooms.presence = vec!["lobby".to_owned()];
        change(&mut config);
        let backend = Arc::new(FaultyBackend {
            rooms: MemoryRooms::default(),
            bus: MemoryBus::new(100),
            faults: Mutex::default(),
            unsent: Mutex::default(),
            stuck: Notify::new(),
        });
        let (leave_log, membership) = (Arc::new(leave_log), Arc::new(FakeMembership::new()));
        let definitions = Definitions { room_hooks: vec![Arc::new(Hook(leave_log.clone()))], ..Definitions::default() };
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
        Ok(Self { node, backend, membership, leave_log, registrations: Mutex::default() })
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
        self.registrations.lock().unwrap().push(self.node.connections().insert(connection.clone()).unwrap());
        connection
    }

    /// Unregisters a connection as if its client had closed it.
    pub(crate) async fn disconnect(&self, connection: &Connection) {
        let registration = {
            let mut all = self.registrations.lock().unwrap();
            let index = all.iter().position(|registration| registration.connection() == connection).unwrap();
            all.remove(index)
        };
        registration.remove(CloseReason::ClientLeft).await;
    }

    /// A connection that has joined the lobby and received its own join.
    pub(crate) async fn member(&self, id: &str) -> Connection {
        let connection = self.connect(id).await;
        self.node.rooms().join(&connection, "lobby").await.unwrap();
        while !next_frame(&connection).await.contains("\"join\"") {}
        connection
    }

    /// The ids listed in the lobby.
    pub(crate) async fn listed(&self) -> Vec<String> {
        let members = self.backend.rooms.members("lobby", 100).await.unwrap().unwrap_or_default();
        let mut ids: Vec<String> = members.listed.iter().map(|member| member.id.to_string()).collect();
        ids.sort_unstable();
        ids
    }

    /// Waits until exactly these ids are listed in the lobby.
    pub(crate) async fn until_listed(&self, ids: &[&str]) {
        eventually("the list is as expected", async || self.listed().await == ids).await;
    }
}

/// Polls a condition until it is true.
pub(crate) async fn eventually(description: &str, mut condition: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !condition().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(20), polling).await.expect(description);
}

/// Waits for the next frame of a client's outbox.
pub(crate) async fn next_frame(connection: &Connection) -> String {
    let mut text = None;
    eventually("a frame is queued", async || {
        if let Next::Frame(Frame::Text(bytes)) = connection.next() {
            text = Some(String::from_utf8(bytes.to_vec()).unwrap());
        }
        text.is_some()
    })
    .await;
    text.unwrap_or_default()
}

/// The frames in a client's outbox.
pub(crate) fn queued_frames(connection: &Connection) -> Vec<String> {
    std::iter::from_fn(|| match connection.next() {
        Next::Frame(Frame::Text(bytes)) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        _ => None,
    })
    .collect()
}
