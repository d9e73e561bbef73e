//! The application: its parts, and how they are run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches};
use phalanx_core::backend::Backend;
use phalanx_core::config::{ClusterSettings, Config, General, NodeRole};
use phalanx_core::error::Chain;
use phalanx_core::event::Observer;
use phalanx_core::initializer::Initializer;
use phalanx_core::layer::Layer;
use phalanx_core::registry::{Definitions, Registry};
use phalanx_core::transport::Transport;
use phalanx_core::{
    ActionSet, BoxError, Engine, Guest, Node, NodeSetup, RemoteDef, SessionData, SessionType, Shutdown, StartError,
    TaskDef,
};
use phalanx_server::{AdminServer, AppRoutes, Server};
use phalanx_tasks::TaskWorker;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::output::{print, print_table};
use crate::command::own::OwnCommand;
use crate::command::{self, AppCommand, Overrides};
use crate::process::{Launch, Sockets};
use crate::settings::{Section, Settings, Sources, check_folder};
use crate::{logging, process, telemetry};

/// An application: built from its parts, then run.
///
/// ```
/// use phalanx::config::Config;
/// use phalanx::prelude::*;
///
/// /// The number of connections of this node.
/// #[action(get)]
/// async fn sockets(ctx: Context) -> Result<usize, ActionError> {
///     Ok(ctx.connections().count())
/// }
///
/// fn app() -> App {
///     App::new("example").version(env!("CARGO_PKG_VERSION")).actions(actions![sockets])
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), phalanx::StartError> {
/// // `main` runs it by `app().run()`; a test starts it in its own process.
/// let mut config = Config::default();
/// config.web.port = 0; // any free port
/// config.admin.bind = String::new();
/// let running = app().start(config).await?;
/// assert_ne!(running.addr().port(), 0);
/// running.stop().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "an application does nothing until it runs"]
pub struct App {
    name: String,
    version: String,
    config_dir: Option<PathBuf>,
    public_dir: Option<PathBuf>,
    definitions: Definitions,
    initializers: Vec<Arc<dyn Initializer>>,
    sections: Vec<Section>,
    routes: AppRoutes,
    configure: Option<Configure>,
    commands: Vec<OwnCommand>,
    /// Runs at the start of the threads of tasks.
    on_thread_start: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// Changes settings that were read.
type Configure = Box<dyn FnOnce(&mut Config) + Send>;

impl App {
    /// Creates an application. Its name is also the name of its cluster unless `cluster.name` is set.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: "0.0.0".to_owned(),
            config_dir: None,
            public_dir: None,
            definitions: Definitions::default(),
            initializers: Vec::new(),
            sections: Vec::new(),
            routes: AppRoutes::default(),
            configure: None,
            commands: Vec::new(),
            on_thread_start: None,
        }
    }

    pub(crate) fn version_text(&self) -> &str {
        &self.version
    }

    /// Sets the application's version: `.version(env!("CARGO_PKG_VERSION"))`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Sets the folder of the settings, which must exist. `--config` and `PHALANX_CONFIG` win over it.
    pub fn config_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.config_dir = Some(folder.into());
        self
    }

    /// Sets the folder of public files, which must exist. `paths.public` wins over it.
    pub fn public_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.public_dir = Some(folder.into());
        self
    }

    /// Adds actions, or a [`group`](crate::group()) of them: `.actions(actions![greet])`.
    pub fn actions(mut self, actions: impl Into<ActionSet>) -> Self {
        self.definitions.actions.extend(actions);
        self
    }

    /// Adds tasks: `.tasks(tasks![send_mail])`.
    pub fn tasks(mut self, tasks: impl IntoIterator<Item = TaskDef>) -> Self {
        self.definitions.tasks.extend(tasks);
        self
    }

    /// Adds remote methods: `.remotes(remotes![authorize])`.
    pub fn remotes(mut self, remotes: impl IntoIterator<Item = RemoteDef>) -> Self {
        self.definitions.remotes.extend(remotes);
        self
    }

    /// Adds a value that actions take as `State<T>`.
    pub fn state<T: Send + Sync + 'static>(mut self, state: T) -> Self {
        self.definitions.states.insert(state);
        self
    }

    /// Sets the type of the application's sessions, which actions take as `Session<T>`. An application has one.
    pub fn session<T: SessionData>(mut self) -> Self {
        self.definitions.sessions.push(SessionType::of::<T>());
        self
    }

    /// Adds a layer around every call; the first one added is outermost.
    pub fn layer(mut self, layer: impl Layer) -> Self {
        self.definitions.layers.push(Arc::new(layer));
        self
    }

    /// Notifies `observer` of every [`Event`](phalanx_core::event::Event).
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.definitions.observers.push(Arc::new(observer));
        self
    }

    /// Adds a part that is started and stopped with the node, such as a connection pool.
    pub fn initializer(mut self, initializer: impl Initializer) -> Self {
        self.initializers.push(Arc::new(initializer));
        self
    }

    /// Reads a section of the settings into `T`, which actions take as `State<T>`. Unknown keys are errors.
    pub fn section<T>(mut self, name: &'static str) -> Self
    where
        T: Serialize + DeserializeOwned + Default + Send + Sync + 'static,
    {
        self.sections.push(Section::of::<T>(name));
        self
    }

    /// Changes the settings once they were read from files and variables. Values out of range end the boot, as those of a
    /// file do. A test that starts the application with settings of its own does not use it.
    pub fn configure(mut self, configure: impl FnOnce(&mut Config) + Send + 'static) -> Self {
        self.configure = Some(Box::new(configure));
        self
    }

    /// Adds a command of the application's own: `app announce …`.
    ///
    /// Its arguments are a type that clap reads; the crate re-exports clap. The command visits the cluster at `REDIS_URL` as
    /// `app call` does: with the handle of a guest, which nodes do not list, and with the application's initializers started.
    /// Without `REDIS_URL` it has the memory of its own process. Stdout is its own; logs go to stderr, from `warn` on.
    ///
    /// The exit code is 0; 1 with the error, unless that is a pipe whose reader has left; 2 for wrong arguments. A name that
    /// another command has ends the program at its start. The options `--config`, `--env` and `--title` are those of all
    /// commands, and `--roles` is that of `start`.
    ///
    /// ```no_run
    /// use phalanx::clap::{self, Parser};
    /// use phalanx::prelude::*;
    ///
    /// /// Says something in a room, as the server.
    /// #[derive(Parser)]
    /// #[command(name = "announce")]
    /// struct Announce {
    ///     room: String,
    ///     text: String,
    /// }
    ///
    /// async fn announce(node: Node, command: Announce) -> Result<(), ActionError> {
    ///     node.rooms().say(&command.room, &command.text).await
    /// }
    ///
    /// fn main() -> phalanx::ExitCode {
    ///     App::new("example").command(announce).run()
    /// }
    /// ```
    pub fn command<C, E>(mut self, run: impl AsyncFnOnce(Node, C) -> Result<(), E> + Send + 'static) -> Self
    where
        C: CommandFactory + FromArgMatches + 'static,
        E: Into<BoxError> + 'static,
    {
        self.commands.push(OwnCommand::new(run));
        self
    }

    /// Parses the command line and runs the command, `start` by default.
    ///
    /// Exit codes: 0 for success, 1 for a failure, 2 for an unknown command or option.
    ///
    /// Panics are logged from here on. A hook of the application's own is installed in an initializer, and calls the one
    /// that it replaces.
    pub fn run(mut self) -> ExitCode {
        logging::install_hook();
        let whole = match command::whole(&self.name, &self.version, &self.commands) {
            Ok(whole) => whole,
            Err(error) => return failed(&error),
        };
        let (command, mut overrides) = match command::parse(whole) {
            Ok(parsed) => parsed,
            Err(code) => return code,
        };
        let launch = match &command {
            AppCommand::Start(launcher) => Launch::take(*launcher),
            _ => Ok(Launch::Plain(Sockets::default())),
        };
        let launch = match launch {
            Ok(launch) => launch,
            Err(code) => return code,
        };
        let options = overrides.options();
        if let Some(id) = launch.node_id() {
            overrides.title = Some(id.to_owned());
        }
        let settings = match self.load_settings(overrides) {
            Ok(settings) => settings,
            Err(error) => return launch.failed(&error),
        };
        match command {
            AppCommand::Config(command) => command::config::config(&settings, command).print(command.as_json),
            AppCommand::Actions => self.with_registry(&settings.config, |registry, config| {
                print_table(&command::action_table(registry, config))
            }),
            AppCommand::Routes { as_json } => self.with_registry(&settings.config, |registry, config| {
                command::routes::routes(registry, &config.web.prefix).print(as_json)
            }),
            AppCommand::Nodes { as_json } => command::nodes::run(self, settings, as_json),
            AppCommand::Connections(command) => command::connections::run(self, settings, &command),
            AppCommand::Rooms(command) => command::rooms::run(self, settings, command),
            AppCommand::Doctor(command) => command::doctor::run(&self, settings, command),
            AppCommand::Tasks(command) => command::tasks::run(self, settings, command),
            AppCommand::Call(command) => command::call::run(self, settings, &command),
            AppCommand::Own(name, matches) => command::own::run(self, settings, &name, &matches),
            AppCommand::Check => self.check(settings),
            AppCommand::Cluster(command) => command::cluster::run(&self.name, &settings, &command),
            AppCommand::StartCluster(start) => process::parent::serve(self.version, settings, start, options),
            AppCommand::Start(_) => process::serve(self, settings, launch),
        }
    }

    /// Reads the settings of this process.
    ///
    /// # Errors
    ///
    /// All that is wrong with them.
    pub(crate) fn load_settings(&mut self, overrides: Overrides) -> Result<Settings, String> {
        let sources = Sources::of_process(overrides, self.config_dir.clone());
        let mut settings = Settings::load(&sources, &self.sections, &mut self.definitions.states)
            .map_err(|error| error.to_string())?;
        if let Some(configure) = self.configure.take() {
            settings.change(configure).map_err(|error| error.to_string())?;
        }
        Ok(settings)
    }

    /// Starts the application in this process with these settings, on the memory backend. Meant for tests: it reads no
    /// files and no environment variables.
    ///
    /// # Errors
    ///
    /// The reason why it cannot start, such as a setting out of range, an action without its state, or a port in use.
    pub async fn start(mut self, config: Config) -> Result<RunningApp, StartError> {
        let settings = self.settings(config)?;
        self.start_with(settings, Sockets::default(), Shutdown::default()).await
    }

    /// Starts the application as [`start`](Self::start) does, as a node of the cluster at `redis_url`.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start), or Redis cannot be reached within `redis.boot_timeout`.
    pub async fn start_in_cluster(mut self, config: Config, redis_url: &str) -> Result<RunningApp, StartError> {
        let mut settings = self.settings(config)?;
        settings.redis_url = Some(redis_url.to_owned());
        self.start_with(settings, Sockets::default(), Shutdown::default()).await
    }

    pub(crate) fn take_commands(&mut self) -> Vec<OwnCommand> {
        std::mem::take(&mut self.commands)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn settings(&mut self, config: Config) -> Result<Settings, StartError> {
        let settings = Settings::of(config, &self.sections, &mut self.definitions.states);
        settings.map_err(|errors| StartError::Settings(errors.into()))
    }

    pub(crate) async fn start_with(
        self,
        settings: Settings,
        sockets: Sockets,
        shutdown: Shutdown,
    ) -> Result<RunningApp, StartError> {
        let backend = backend(&self.name, &settings, phalanx_cluster::backend)?;
        self.start_on(backend, settings, sockets, shutdown).await
    }

    pub(crate) async fn start_on(
        mut self,
        backend: Backend,
        mut settings: Settings,
        mut sockets: Sockets,
        shutdown: Shutdown,
    ) -> Result<RunningApp, StartError> {
        let missing = self.missing_public_folders(&mut settings);
        if !missing.is_empty() {
            return Err(StartError::Settings(missing.join("\n       ").into()));
        }
        let (transports, server, admin) = self.transports(&settings.config, &mut sockets);
        if !settings.config.admin.bind.is_empty() {
            admin.listen(&settings.config.admin, sockets.admin, &shutdown).map_err(StartError::Transport)?;
        }
        let is_embedded = settings.redis_url.is_none();
        let mut setup = self.into_setup(settings, backend);
        setup.transports = transports;
        setup.shutdown = shutdown;
        let engine = Engine::start(setup).await?;
        telemetry::spawn_upkeep(engine.shutdown());
        roles::warn_of_missing(&engine);
        sessions::warn_of_settings(&engine, is_embedded);
        Ok(RunningApp { engine, server, admin })
    }

    /// Applies the application's folder of public files where the settings name none. Returns those that are named and do
    /// not exist.
    pub(crate) fn missing_public_folders(&self, settings: &mut Settings) -> Vec<String> {
        let default = Config::default().paths.public;
        let public = &mut settings.config.paths.public;
        if let Some(folder) = &self.public_dir
            && *public == default
        {
            *public = vec![folder.clone()];
        }
        if *public == default {
            return Vec::new();
        }
        public.iter().filter_map(|root| check_folder("paths.public", root).err()).collect()
    }

    /// The transports of a node, and those that have addresses.
    fn transports(
        &mut self,
        config: &Config,
        sockets: &mut Sockets,
    ) -> (Vec<Arc<dyn Transport>>, Arc<Server>, Arc<AdminServer>) {
        let server = Server::new(std::mem::take(&mut self.routes));
        let server = Arc::new(match sockets.web.take() {
            Some(socket) if sockets.is_shared => server.on_shared(socket),
            Some(socket) => server.on(socket),
            None => server,
        });
        let admin = Arc::new(AdminServer::new(telemetry::install()));
        let has = |role| config.general.roles.contains(&role);
        let mut transports: Vec<Arc<dyn Transport>> = Vec::new();
        if has(NodeRole::Web) {
            transports.push(server.clone());
        }
        if !config.admin.bind.is_empty() {
            transports.push(admin.clone());
        }
        if has(NodeRole::Worker) || has(NodeRole::Scheduler) {
            let worker = TaskWorker::new();
            transports.push(Arc::new(match self.on_thread_start.take() {
                Some(run) => worker.on_thread_start(run),
                None => worker,
            })); // starts last, stops first
        }
        (transports, server, admin)
    }

    /// Enters the cluster as a guest: for commands of operators.
    pub(crate) async fn visit(self, settings: Settings) -> Result<Guest, StartError> {
        let mut backend = backend(&self.name, &settings, phalanx_cluster::guest_backend)?;
        if settings.redis_url.is_none() {
            backend.tasks = None; // jobs would end with this process, and no worker runs in it
        }
        Engine::visit(self.into_setup(settings, backend)).await
    }

    /// The part of the setup that a node and a guest share.
    fn into_setup(self, settings: Settings, backend: Backend) -> NodeSetup {
        let mut setup = NodeSetup::new(self.name, settings.config);
        setup.version = self.version;
        setup.node_id = settings.node_id;
        setup.backend = backend;
        setup.environment = settings.environment;
        setup.definitions = self.definitions;
        setup.initializers = self.initializers;
        setup
    }

    /// Runs a command on the definitions that a node would serve.
    fn with_registry(self, config: &Config, command: impl FnOnce(&Registry, &Config) -> ExitCode) -> ExitCode {
        match self.plan(config) {
            Ok(registry) => command(&registry, config),
            Err(error) => failed(&Chain(&*error)),
        }
    }

    /// The definitions that a node would serve, including those that initializers add.
    fn plan(self, config: &Config) -> Result<Registry, BoxError> {
        let runtime = tokio::runtime::Runtime::new()?;
        let planned = runtime.block_on(Engine::plan(&self.initializers, self.definitions, config));
        runtime.shutdown_background(); // an initializer may have left tasks running
        Ok(planned?)
    }
}

/// Makes a backend over Redis: for a URL, a cluster, a node and its settings.
type OverRedis = fn(&str, &str, &str, &Config) -> Result<Backend, BoxError>;

/// The backend: Redis if `REDIS_URL` is set, otherwise the node's own memory.
fn backend(app: &str, settings: &Settings, over_redis: OverRedis) -> Result<Backend, StartError> {
    let Some((url, cluster)) = redis_of(app, settings)? else { return Ok(Backend::memory(&settings.config)) };
    over_redis(url, cluster, &settings.node_id, &settings.config)
        .map_err(|error| StartError::Cluster(format!("REDIS_URL cannot be used: {error}").into()))
}

/// The address of Redis and the name of the cluster, if the settings fit a cluster.
pub(crate) fn redis_of<'a>(app: &'a str, settings: &'a Settings) -> Result<Option<(&'a str, &'a str)>, StartError> {
    let Some(url) = &settings.redis_url else { return Ok(None) };
    let is_default = settings.config.general.server_token == General::DEFAULT_TOKEN;
    if is_default && !["development", "test"].contains(&settings.environment.0.as_str()) {
        let reason = "general.server_token is the default, which is public: set it for a cluster";
        return Err(StartError::Cluster(reason.into()));
    }
    let cluster = settings.config.cluster.name_of(app);
    if !ClusterSettings::is_name(cluster) {
        let reason = format!("the application's name {cluster:?} cannot be that of its cluster: set cluster.name");
        return Err(StartError::Cluster(reason.into()));
    }
    if settings.config.cluster.interop && settings.config.cluster.interop_channel == cluster {
        let reason = "cluster.interop_channel is the cluster's own name: sealed messages would reach Actionhero nodes";
        return Err(StartError::Cluster(reason.into()));
    }
    Ok(Some((url, cluster)))
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "App({})", self.name)
    }
}

pub(crate) fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    // If stderr is closed or stuck, the exit code still reports the failure.
    logging::print_reason(error);
    ExitCode::FAILURE
}

mod check;
mod hooks;
#[cfg(feature = "testing")]
mod in_test;
mod roles;
mod routes;
mod running;
mod sessions;
pub(crate) use check::unwritable_folders;
#[cfg(feature = "testing")]
pub(crate) use in_test::TestTime;
pub use routes::IntoRoutes;
pub use running::RunningApp;
#[cfg(test)]
mod tests;
