//! The start of applications: which settings, sections and states they have, and where.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::BoxFuture;
use phalanx_core::config::Config;
use tempfile::TempDir;

use super::app::{ReadyApp, TestApp};
use super::job_store::JobMode;
use super::nodes::TestNodes;
use super::panics::PanicList;
use crate::app::App;
use crate::settings::without_password;

/// The grace of a node in a test, unless it is set: a call that does not end holds up the test for so long.
const GRACE: Duration = Duration::from_secs(5);

/// How long a node in a test waits for Redis, unless it is set.
const REDIS: Duration = Duration::from_secs(10);

/// Changes the settings of a test.
type Change = Box<dyn FnOnce(&mut Config) + Send>;

/// Replaces a section or a state.
type Replacement = Box<dyn FnOnce(&mut App) -> Result<(), String> + Send>;

/// Starts an application in this process: `testing::start(app()).await`.
///
/// It is ready when the future completes. It listens at a free port of 127.0.0.1, has the embedded backend with a
/// [clock](TestApp::clock) of its own, and a folder of its own for uploads; it writes no pid file and no log file, and handles no
/// signals. Its settings are those of its folder of settings, `default.toml` and `test.toml`, and what [`App::configure`] and
/// [`TestStart::settings`] change; no variable changes them. It stops when the [`TestApp`] is dropped.
///
/// # Panics
///
/// When awaited, if the application does not start: with the reason.
pub fn start(app: App) -> TestStart {
    TestStart::new(app, TestNodes::alone(), "test")
}

/// Starts two nodes of an application, which are a cluster at a Redis: `testing::two(app, "redis://127.0.0.1").await`.
///
/// The cluster has a name of its own, and its keys have prefixes of their own, which begin with `phalanx-test-`. They are
/// deleted when the second node has stopped; those of a process that was killed stay. So `cluster.name`, `redis.prefix` and
/// `tasks.prefix` cannot be changed. The variable `PHALANX_TEST_REDIS` names another Redis than the one given, such as the one
/// of CI. The clock of both is that of Redis: there is none to put forward. All else is as for [`start`]; the ids of the nodes
/// are `one` and `two`.
///
/// # Panics
///
/// When awaited, if one of them does not start, or one of these three settings was changed: with the reason.
pub fn two(app: impl Fn() -> App, redis: impl Into<String>) -> TestPairStart {
    let nodes = TestNodes::pair(chosen_redis(std::env::var("PHALANX_TEST_REDIS").ok(), redis.into()));
    TestPairStart { starts: ["one", "two"].map(|id| TestStart::new(app(), nodes.clone(), id)) }
}

/// The Redis that the variable sets, or the one in the test.
fn chosen_redis(set: Option<String>, given: String) -> String {
    set.filter(|url| !url.is_empty()).unwrap_or(given)
}

/// An application that is about to start; await it. See [`start`].
#[must_use = "an application starts when this is awaited"]
pub struct TestStart {
    app: App,
    id: &'static str,
    folder: TempDir,
    nodes: Arc<TestNodes>,
    pub(super) job_mode: JobMode,
    changes: Vec<Change>,
    replacements: Vec<Replacement>,
}

impl TestStart {
    fn new(app: App, nodes: Arc<TestNodes>, id: &'static str) -> Self {
        let folder = tempfile::Builder::new().prefix("phalanx-test-").tempdir();
        let folder = folder.expect("a test needs a folder: TMPDIR is one that takes files");
        Self { app, id, folder, nodes, job_mode: JobMode::Beside, changes: Vec::new(), replacements: Vec::new() }
    }

    /// Changes settings: `.settings(|config| config.rooms.start = vec!["lobby".into()])`. Of several changes the last one wins.
    pub fn settings(mut self, change: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Gives the application this value for the section that it reads into `T`: see [`App::section`].
    pub fn section<T: Send + Sync + 'static>(mut self, section: T) -> Self {
        self.replacements.push(Box::new(move |app| app.replace_state(section)));
        self
    }

    /// Replaces the application's state of this type, as by one that sends no mail. States that an initializer adds come
    /// later, and win.
    pub fn state<T: Send + Sync + 'static>(self, state: T) -> Self {
        self.section(state)
    }

    /// The application's own folder, which is there already: a section may name a file in it. It is removed with all that is in
    /// it once the application has stopped.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns why the application refuses to start.
    ///
    /// # Panics
    ///
    /// If it starts.
    pub async fn refused(self) -> String {
        let name = self.app.name().to_owned();
        match self.boot().await {
            Ok(_) => panic!("{name} has started, and was to refuse"),
            Err(reason) => reason,
        }
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// Why it does not start.
    async fn boot(self) -> Result<TestApp, String> {
        TestApp::boot(self.prepare()?).await
    }

    /// Makes its settings and states.
    ///
    /// # Errors
    ///
    /// Why it cannot start with them.
    fn prepare(self) -> Result<ReadyApp, String> {
        log_to_test();
        PanicList::install_hook();
        let Self { mut app, id, folder, nodes, job_mode, changes, replacements } = self;
        let settings = app.settings_of_test(|config| {
            set_base(config, id, folder.path());
            job_mode.set(config);
            nodes.set_names(config);
            changes.into_iter().for_each(|change| change(config));
        })?;
        nodes.check_names(&settings.config)?;
        for replace in replacements {
            replace(&mut app)?;
        }
        Ok(ReadyApp { app, settings, folder, nodes, job_mode })
    }
}

/// Sets what all tests have, and changes may change.
fn set_base(config: &mut Config, id: &str, folder: &Path) {
    config.general.id = id.to_owned();
    config.general.grace = GRACE;
    config.general.stop_delay = Duration::ZERO;
    config.redis.boot_timeout = REDIS;
    config.web.bind = [127, 0, 0, 1].into();
    config.web.port = 0;
    config.websocket.drain = Duration::ZERO;
    config.admin.bind = String::new();
    config.log.file = false;
    config.paths.log = folder.join("log");
    config.paths.pid = "".into();
    config.paths.uploads = folder.to_owned();
}

/// Prints warnings and errors of applications into the output of the tests, which a failing test shows: the cause of an
/// `internal` is among them. `RUST_LOG` sets another filter. A subscriber of the test program itself stays.
fn log_to_test() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_test_writer().try_init();
}

impl IntoFuture for TestStart {
    type Output = TestApp;
    type IntoFuture = BoxFuture<'static, TestApp>;

    fn into_future(self) -> Self::IntoFuture {
        let name = self.app.name().to_owned();
        Box::pin(async move { self.boot().await.unwrap_or_else(|reason| panic!("{name} did not start: {reason}")) })
    }
}

impl std::fmt::Debug for TestStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestStart({})", self.app.name())
    }
}

/// Two nodes that are about to start; await them. See [`two`].
#[must_use = "the nodes start when this is awaited"]
#[derive(Debug)]
pub struct TestPairStart {
    starts: [TestStart; 2],
}

impl TestPairStart {
    /// Changes settings of both: see [`TestStart::settings`], and [`two`] for three that it cannot change.
    pub fn settings(self, change: impl Fn(&mut Config) + Clone + Send + 'static) -> Self {
        Self { starts: self.starts.map(|start| start.settings(change.clone())) }
    }

    /// Gives both this value for a section: see [`TestStart::section`].
    pub fn section<T: Clone + Send + Sync + 'static>(self, section: T) -> Self {
        Self { starts: self.starts.map(|start| start.section(section.clone())) }
    }

    /// Replaces a state of both: see [`TestStart::state`].
    pub fn state<T: Clone + Send + Sync + 'static>(self, state: T) -> Self {
        self.section(state)
    }
}

impl IntoFuture for TestPairStart {
    type Output = (TestApp, TestApp);
    type IntoFuture = BoxFuture<'static, (TestApp, TestApp)>;

    fn into_future(self) -> Self::IntoFuture {
        let url = without_password(self.starts[0].nodes.url().unwrap_or_default());
        let at = format!("; their Redis is {url}, and PHALANX_TEST_REDIS names another");
        Box::pin(async move {
            // Both are ready before one starts: if one cannot start, nothing of the other is in Redis.
            let [one, two] = self.starts.map(|start| {
                let id = start.id;
                start.prepare().unwrap_or_else(|reason| panic!("node {id} did not start: {reason}"))
            });
            // Both have ended their boot before one fails the test: so the last of them deletes their keys.
            match futures_util::join!(TestApp::boot(one), TestApp::boot(two)) {
                (Ok(one), Ok(two)) => (one, two),
                (Err(reason), _) => panic!("node one did not start: {reason}{at}"),
                (_, Err(reason)) => panic!("node two did not start: {reason}{at}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_wins_over_the_redis_of_the_test_unless_it_is_empty() {
        for (set, chosen) in [(None, "given"), (Some(""), "given"), (Some("set"), "set")] {
            assert_eq!(chosen_redis(set.map(str::to_owned), "given".to_owned()), chosen);
        }
    }
}
