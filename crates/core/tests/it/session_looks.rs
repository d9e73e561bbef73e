//! Looks at the sessions of sockets, on a store that does not answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use phalanx_core::backend::{
    Backend, BackendError, CreatedSession, ListedSession, NewSession, SessionKey, SessionRenewal,
    SessionRenewalOutcome, SessionStore, SessionUse, SessionWrite, SessionWriteOutcome, StoredSession, UserKey,
};
use phalanx_core::config::Config;
use phalanx_core::connection::{Attributes, Connection, NewConnection, OutboxLimit};
use phalanx_core::http::HeaderMap;
use phalanx_core::protocol::CloseReason;
use phalanx_core::serde::{Deserialize, Serialize};
use phalanx_core::{Engine, NodeSetup, Registration, SessionData, SessionType};
use tokio::time::{Instant, sleep};

/// Sessions in memory, whose reads are counted, and fail while the store is away.
struct CountingStore {
    store: Arc<dyn SessionStore>,
    reads: AtomicUsize,
    is_away: AtomicBool,
}

#[async_trait]
impl SessionStore for CountingStore {
    async fn read(&self, key: SessionKey, using: Option<SessionUse>) -> Result<Option<StoredSession>, BackendError> {
        self.reads.fetch_add(1, SeqCst);
        if self.is_away.load(SeqCst) {
            return Err(BackendError::unavailable("on purpose"));
        }
        self.store.read(key, using).await
    }

    async fn create(&self, new: NewSession) -> Result<CreatedSession, BackendError> {
        self.store.create(new).await
    }

    async fn write(&self, key: SessionKey, write: SessionWrite) -> Result<SessionWriteOutcome, BackendError> {
        self.store.write(key, write).await
    }

    async fn renew(&self, key: SessionKey, renewal: SessionRenewal) -> Result<SessionRenewalOutcome, BackendError> {
        self.store.renew(key, renewal).await
    }

    async fn end(&self, key: SessionKey) -> Result<Vec<SessionKey>, BackendError> {
        self.store.end(key).await
    }

    async fn list(&self, user: UserKey) -> Result<Vec<ListedSession>, BackendError> {
        self.store.list(user).await
    }

    async fn end_all(&self, user: UserKey) -> Result<Vec<SessionKey>, BackendError> {
        self.store.end_all(user).await
    }

    async fn end_again(&self, keys: &[SessionKey]) -> Result<Vec<SessionKey>, BackendError> {
        self.store.end_again(keys).await
    }

    async fn end_others(&self, key: SessionKey) -> Result<Option<Vec<SessionKey>>, BackendError> {
        self.store.end_others(key).await
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(crate = "phalanx_core::serde")]
struct Account {}

impl SessionData for Account {
    fn user(&self) -> Option<&str> {
        None
    }
}

/// A node with sockets that have a session each.
struct Sockets {
    engine: Engine,
    store: Arc<CountingStore>,
    keys: Vec<SessionKey>,
    registrations: Vec<Registration>,
}

impl Sockets {
    async fn start(count: usize) -> Self {
        let config = Config::default();
        let memory = Backend::memory(&config);
        let (reads, is_away) = Default::default();
        let store = Arc::new(CountingStore { store: memory.sessions.clone(), reads, is_away });
        let mut setup = NodeSetup::new("looks", config);
        setup.backend = Backend { sessions: store.clone(), ..memory };
        setup.definitions.sessions.push(SessionType::of::<Account>());
        let engine = Engine::start(setup).await.unwrap();
        let mut sockets = Self { engine, store, keys: Vec::new(), registrations: Vec::new() };
        for number in 0..count {
            sockets.connect(number).await;
        }
        sockets
    }

    async fn connect(&mut self, number: usize) {
        let id = format!("{number:043}");
        let (key, value) = (SessionKey::of(&id), "{}".into());
        let lasts = Duration::from_secs(24 * 60 * 60);
        let new = NewSession { key, user: None, value, is_remembered: true, idle: lasts, absolute: lasts };
        self.store.create(new).await.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("cookie", format!("looks-session={id}").parse().unwrap());
        let session = self.engine.session_of_upgrade(&headers, true).await.unwrap();
        let new = NewConnection {
            id: self.engine.new_connection_id(),
            fingerprint: "f".into(),
            remote: SocketAddr::from(([127, 0, 0, 1], 1)),
            attributes: Attributes::limited(1000),
            connected_at: 0,
            outbox: OutboxLimit { frames: 8, bytes: 1000 },
        };
        let registration = self.engine.register(Connection::of_session(new, session)).unwrap();
        registration.confirm_session().await.unwrap();
        self.registrations.push(registration);
        self.keys.push(key);
    }

    fn closing(&self) -> Vec<Option<CloseReason>> {
        self.registrations.iter().map(|registration| registration.connection().closing()).collect()
    }

    async fn stop(self) {
        for registration in self.registrations {
            registration.remove(CloseReason::ClientLeft).await;
        }
        self.engine.stop().await;
    }
}

/// A batch is 50. One after the other, each of which takes the timeout of a command, they would take minutes, in which the store
/// is back long since.
#[tokio::test(start_paused = true)]
async fn a_look_ends_with_the_first_batch_that_is_not_answered_and_is_repeated() {
    let sockets = Sockets::start(120).await;
    sockets.store.is_away.store(true, SeqCst);
    sockets.store.reads.store(0, SeqCst);
    let until_reads = async |count: usize| {
        let start = Instant::now();
        while sockets.store.reads.load(SeqCst) < count {
            assert!(start.elapsed() < Duration::from_secs(40), "{count} reads");
            sleep(Duration::from_millis(10)).await;
        }
    };
    until_reads(1).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(sockets.store.reads.load(SeqCst), 50, "the others are not tried");
    until_reads(100).await; // a second later, and each second
    sockets.store.end(sockets.keys[119]).await.unwrap();
    sockets.store.is_away.store(false, SeqCst);
    until_reads(100 + 120).await;
    sleep(Duration::from_millis(500)).await;
    assert!(sockets.closing()[..119].iter().all(Option::is_none));
    assert_eq!(sockets.closing()[119], Some(CloseReason::SessionRenewed), "the store may have lost all");
    sockets.stop().await;
}
