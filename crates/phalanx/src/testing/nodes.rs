//! The nodes of one test that are a cluster: one alone, or two.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use phalanx_core::config::Config;
use phalanx_core::{ActionError, Node};
use tempfile::TempDir;

/// The topic by which a test learns that messages have arrived.
const TOPIC: &str = "phalanx-testing";

/// The longest wait for it.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The nodes of one cluster.
#[derive(Debug)]
pub(super) struct TestNodes {
    redis: Option<TestRedis>,
    running: Mutex<Vec<Node>>,
    /// How many have not ended, or not begun.
    left: AtomicUsize,
    markers: AtomicUsize,
}

/// The part of a Redis that a cluster has for itself.
#[derive(Debug)]
struct TestRedis {
    url: String,
    cluster: String,
}

impl TestNodes {
    pub(super) fn alone() -> Arc<Self> {
        Arc::new(Self { redis: None, running: Mutex::default(), left: 1.into(), markers: 0.into() })
    }

    pub(super) fn pair(url: String) -> Arc<Self> {
        let redis = Some(TestRedis { url, cluster: unique_name() });
        Arc::new(Self { redis, running: Mutex::default(), left: 2.into(), markers: 0.into() })
    }

    pub(super) fn url(&self) -> Option<&str> {
        self.redis.as_ref().map(|redis| &*redis.url)
    }

    /// Sets the names by which the keys and channels of a cluster are its own.
    pub(super) fn set_names(&self, config: &mut Config) {
        if let Some(TestRedis { cluster, .. }) = &self.redis {
            config.redis.prefix = format!("{cluster}:");
            config.tasks.prefix = format!("{cluster}:resque:");
            config.cluster.name.clone_from(cluster);
        }
    }

    /// Checks that the names are those set. With others the nodes would read what is not of this test, and their end would
    /// delete it.
    ///
    /// # Errors
    ///
    /// The setting that was changed.
    pub(super) fn check_names(&self, config: &Config) -> Result<(), String> {
        let mut own = config.clone();
        self.set_names(&mut own);
        let names = [
            ("redis.prefix", &config.redis.prefix, own.redis.prefix),
            ("tasks.prefix", &config.tasks.prefix, own.tasks.prefix),
            ("cluster.name", &config.cluster.name, own.cluster.name),
        ];
        match names.into_iter().find(|(_, name, own)| *name != own) {
            Some((setting, name, own)) => Err(format!(
                "a test of two nodes may not change {setting}, which is {name:?} instead of {own:?}: what begins with the \
                 names of its cluster is deleted at its end"
            )),
            None => Ok(()),
        }
    }

    pub(super) fn add(&self, node: Node) {
        self.running().push(node);
    }

    pub(super) fn remove(&self, node: &Node) {
        self.running().retain(|running| running.generation() != node.generation());
    }

    /// Awaits that what the nodes have published until now has arrived at one of them: behind it, each publishes a marker.
    pub(super) async fn arrived_at(&self, node: &Node) -> Result<(), String> {
        let nodes = self.running().clone();
        let number = self.markers.fetch_add(1, SeqCst);
        let arriving = async {
            let mut markers = node.cluster().subscribe(TOPIC)?;
            for node in &nodes {
                node.cluster().publish(TOPIC, &number).await?;
            }
            let mut missing = nodes.len();
            while missing > 0 {
                match markers.next::<usize>().await {
                    Some(received) => missing -= usize::from(received? == number),
                    None => return Ok(()), // the node stops
                }
            }
            Ok::<(), ActionError>(())
        };
        match tokio::time::timeout(ARRIVAL, arriving).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("the nodes did not exchange messages: {error}")),
            Err(_) => Err(format!("no message of the nodes arrived within {ARRIVAL:?}")),
        }
    }

    /// Deletes the keys of the cluster when its last node has ended. Must be called in a runtime.
    pub(super) async fn ended(&self, config: &Config) {
        if self.left.fetch_sub(1, SeqCst) > 1 {
            return;
        }
        if let Some(TestRedis { url, cluster }) = &self.redis
            && let Err(error) = phalanx_cluster::erase(url, cluster, config).await
        {
            tracing::warn!(%error, "keys that begin with {cluster} or phalanx:{cluster} are left in Redis");
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<Node>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name that no other test has, also of another process. Folders have such names.
fn unique_name() -> String {
    let folder = tempfile::Builder::new().prefix("phalanx-test-").rand_bytes(12).tempdir();
    let folder = folder.as_ref().ok().map(TempDir::path).and_then(|path| path.file_name()?.to_str());
    folder.expect("a test needs a folder: TMPDIR is one that takes files").to_owned()
}
