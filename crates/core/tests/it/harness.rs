//! A single node whose backend fails on demand.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use phalanx_core::backend::{
    Backend, BackendError, Bus, CreateOutcome, HeldMember, Incoming, JoinOutcome, LeaveOutcome, Member, Members,
    MembersCursor, NodeMessage, Posted, Publication, Recipient, RelistOutcome, Relisting, RoomStore, SendGuard,
    SessionKey, StoredMember, Subscription, TagId, TagMessage,
};
use phalanx_core::config::Config;
use phalanx_core::connection::{Attributes, Frame, NewConnection, OutboxItem, OutboxLimit};
use phalanx_core::hooks::{Hooks, LeaveCause, LeftRoom};
use phalanx_core::memory::{MemoryBus, MemoryRooms};
use phalanx_core::protocol::CloseReason;
use phalanx_core::registry::Definitions;
use phalanx_core::{
    BoxFuture, Connection, ConnectionId, Engine, Generation, Incarnation, Node, NodeSetup, Registration, StartError,
};
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
    /// The step is not done, and its reply never arrives.
    Stuck,
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
    unsent: Mutex<Vec<SendGuard>>,
    /// Whether a node of the last release is in the cluster.
    pub(crate) has_old_nodes: AtomicBool,
    /// Nodes that receive what is published to tags, beside this one.
    pub(crate) other_receivers: AtomicUsize,
    /// The last tag that the node subscribed to.
    last_tag: Mutex<Option<TagId>>,
    /// Whether subscriptions to tags are not confirmed.
    holds_subscriptions: AtomicBool,
    /// Items that the node receives beside those of its bus.
    injected: (mpsc::Sender<Incoming>, Mutex<Option<mpsc::Receiver<Incoming>>>),
    /// Notified when a step waits for a reply that never arrives.
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

    /// The last tag that the node subscribed to.
    pub(crate) fn last_tag(&self) -> TagId {
        self.last_tag.lock().unwrap().unwrap()
    }

    /// Has no further subscription to a tag confirmed.
    pub(crate) fn hold_subscriptions(&self) {
        self.holds_subscriptions.store(true, Relaxed);
    }

    /// Delivers an item of the bus.
    pub(crate) async fn inject(&self, item: Incoming) {
        self.injected.0.send(item).await.unwrap();
    }

    /// Delivers a message as if from another node.
    pub(crate) async fn receive(&self, message: NodeMessage) {
        self.bus.open_inbox(Generation::random()).await.unwrap();
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
            Some(Fault::Stuck) => {
                self.stuck.notify_one();
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl RoomStore for FaultyBackend {
    async fn create(&self, room: &str, max: usize) -> Result<CreateOutcome, BackendError> {
        self.rooms.create(room, max).await
    }

    async fn exists(&self, room: &str) -> Result<bool, BackendError> {
        self.rooms.exists(room).await
    }

    async fn list(&self) -> Result<Vec<String>, BackendError> {
        self.rooms.list().await
    }

    async fn close(&self, room: &str) -> Result<Option<Incarnation>, BackendError> {
        self.step("close", self.rooms.close(room)).await
    }

    async fn forget(&self, room: &str, incarnation: Incarnation) -> Result<(), BackendError> {
        self.step("forget", self.rooms.forget(room, incarnation)).await
    }

    async fn join(
        &self,
        room: &str,
        member: &Member,
        of: Generation,
        number: u64,
    ) -> Result<JoinOutcome, BackendError> {
        self.step("join", self.rooms.join(room, member, of, number)).await
    }

    async fn undo_join(&self, room: &str, member: &Member, of: Generation, number: u64) -> Result<(), BackendError> {
        self.step("undo", self.rooms.undo_join(room, member, of, number)).await
    }

    async fn leave(
        &self,
        room: &str,
        member: &Member,
        incarnation: Incarnation,
        of: Generation,
    ) -> Result<LeaveOutcome, BackendError> {
        self.step("leave", self.rooms.leave(room, member, incarnation, of)).await
    }

    async fn relist(&self, how: &Relisting, members: &[HeldMember]) -> Result<Vec<RelistOutcome>, BackendError> {
        self.step("relist", self.rooms.relist(how, members)).await
    }

    async fn stored(&self, of: Generation, start: u64) -> Result<(Vec<StoredMember>, u64), BackendError> {
        self.step("stored", self.rooms.stored(of, start)).await
    }

    async fn remove_stored(&self, of: Generation, floor: u64, members: &[StoredMember]) -> Result<u64, BackendError> {
        self.step("remove", self.rooms.remove_stored(of, floor, members)).await
    }

    async fn members_page(
        &self,
        room: &str,
        after: Option<&MembersCursor>,
        max: usize,
    ) -> Result<Option<Members>, BackendError> {
        self.rooms.members_page(room, after, max).await
    }
}

#[async_trait]
impl Bus for FaultyBackend {
    async fn open_inbox(&self, generation: Generation) -> Result<(), BackendError> {
        self.bus.open_inbox(generation).await
    }

    async fn publish(&self, message: Publication) -> Result<(), BackendError> {
        self.step("publish", self.bus.publish(message)).await
    }

    fn all_read_lists(&self) -> bool {
        !self.has_old_nodes.load(Relaxed)
    }

    async fn post(&self, to: Recipient, message: NodeMessage) -> Result<Posted, BackendError> {
        self.bus.post(to, message).await
    }

    fn try_post(
        &self,
        _to: Recipient,
        _message: NodeMessage,
        guard: SendGuard,
    ) -> Result<(), (NodeMessage, SendGuard)> {
        self.unsent.lock().unwrap().push(guard);
        Ok(())
    }

    async fn subscribe(&self, room: &Arc<str>) -> Result<Subscription, BackendError> {
        self.bus.subscribe(room).await
    }

    async fn publish_to_tag(&self, message: TagMessage) -> Result<usize, BackendError> {
        let receivers = self.step("publish to tag", self.bus.publish_to_tag(message)).await?;
        Ok(receivers + self.other_receivers.load(Relaxed))
    }

    fn subscribe_to_tag(&self, tag: TagId) -> (Subscription, BoxFuture<'static, Result<(), BackendError>>) {
        *self.last_tag.lock().unwrap() = Some(tag);
        let (subscription, stands) = self.bus.subscribe_to_tag(tag);
        let is_held = self.holds_subscriptions.load(Relaxed);
        (subscription, if is_held { Box::pin(std::future::pending()) } else { stands })
    }

    fn receiver(&self) -> Option<mpsc::Receiver<Incoming>> {
        let (mut own, injected) = (self.bus.receiver()?, self.injected.0.clone());
        tokio::spawn(async move {
            while let Some(item) = own.recv().await {
                if injected.send(item).await.is_err() {
                    return;
                }
            }
        });
        self.injected.1.lock().unwrap().take()
    }
}

/// The calls of the `left` hook, by member, room and cause; leaves of one cause are blocked until the test resumes them.
#[derive(Debug, Default)]
pub(crate) struct LeaveLog {
    entries: Mutex<Vec<String>>,
    blocks: Option<&'static str>,
    blocks_in_left: bool,
    pub(crate) blocked: Notify,
    pub(crate) resume: Notify,
}

impl LeaveLog {
    /// Blocks leaves of that cause: requested ones in `before_leave`, others in `left`.
    pub(crate) fn blocking(cause: &'static str) -> Self {
        Self { blocks: Some(cause), ..Self::default() }
    }

    /// Blocks leaves of that cause in `left`, also requested ones.
    pub(crate) fn blocking_left(cause: &'static str) -> Self {
        Self { blocks_in_left: true, ..Self::blocking(cause) }
    }

    async fn block_on(&self, cause: &str, in_left: bool) {
        if self.blocks == Some(cause) && in_left == (self.blocks_in_left || cause != "requested") {
            self.blocked.notify_one();
            self.resume.notified().await;
        }
    }

    pub(crate) fn entries(&self) -> Vec<String> {
        self.entries.lock().unwrap().clone()
    }
}

fn hooks(log: &Arc<LeaveLog>) -> Hooks {
    let mut hooks = Hooks::default();
    let of_leave = log.clone();
    hooks.before_leave(move |_| {
        let log = of_leave.clone();
        async move {
            log.block_on("requested", false).await;
            Ok(())
        }
    });
    let of_left = log.clone();
    hooks.after_leave(move |left: LeftRoom| {
        let log = of_left.clone();
        async move {
            let cause = match left.cause() {
                LeaveCause::Requested => "requested",
                LeaveCause::Closed => "ended",
                LeaveCause::RoomDestroyed => "destroyed",
                _ => "died",
            };
            log.entries.lock().unwrap().push(format!("{} {} {cause}", left.id(), left.room()));
            log.block_on(cause, true).await;
        }
    });
    hooks
}

/// A node with the room `lobby`, which has presence.
pub(crate) struct Harness {
    pub(crate) engine: Engine,
    pub(crate) node: Node,
    pub(crate) backend: Arc<FaultyBackend>,
    pub(crate) membership: Arc<FakeMembership>,
    pub(crate) leave_log: Arc<LeaveLog>,
    registrations: Mutex<Vec<Registration>>,
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
        let (inject, injected) = mpsc::channel(1);
        let backend = Arc::new(FaultyBackend {
            rooms: MemoryRooms::default(),
            bus: MemoryBus::new(100),
            faults: Mutex::default(),
            unsent: Mutex::default(),
            has_old_nodes: AtomicBool::new(false),
            other_receivers: AtomicUsize::new(0),
            last_tag: Mutex::default(),
            holds_subscriptions: AtomicBool::new(false),
            injected: (inject, Mutex::new(Some(injected))),
            stuck: Notify::new(),
        });
        let (leave_log, membership) = (Arc::new(leave_log), Arc::new(FakeMembership::new()));
        let definitions = Definitions { hooks: hooks(&leave_log), ..Definitions::default() };
        let shared = Backend {
            rooms: backend.clone(),
            bus: backend.clone(),
            membership: membership.clone(),
            ..Backend::memory(&config)
        };
        let mut setup = NodeSetup::new("test", config);
        setup.backend = shared;
        setup.definitions = definitions;
        let engine = Engine::start(setup).await?;
        let node = engine.node().clone();
        Ok(Self { engine, node, backend, membership, leave_log, registrations: Mutex::default() })
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
        self.registrations.lock().unwrap().push(self.engine.register(connection.clone()).unwrap());
        connection
    }

    /// Makes a connection one of a session, and of its user.
    pub(crate) async fn set_session(&self, connection: &Connection, session: &str, user: Option<&str>) {
        let registration = {
            let mut all = self.registrations.lock().unwrap();
            let index = all.iter().position(|registration| registration.connection() == connection).unwrap();
            all.remove(index)
        };
        registration.set_session(SessionKey::of(session), user).await.unwrap();
        self.registrations.lock().unwrap().push(registration);
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

    /// The number of members in the lobby.
    pub(crate) async fn listed_count(&self) -> usize {
        self.backend.rooms.members("lobby", 1).await.unwrap().map_or(0, |members| members.count)
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
        if let OutboxItem::Frame(Frame::Text(bytes)) = connection.next() {
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
        OutboxItem::Frame(Frame::Text(bytes)) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        _ => None,
    })
    .collect()
}
