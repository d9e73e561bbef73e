//! A worker of `start cluster`: a node whose parent process hands it its id and its sockets, and watches it.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use phalanx_core::config::NodeRole;
use phalanx_supervisor::link::{Handover, LinkError, ParentMessage, WorkerLink, WorkerMessage};
use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, warn};

use super::ProcessRequest;
use super::sockets::Sockets;
use crate::app::RunningApp;
use crate::settings::Settings;

/// The hidden option of a program that a parent process starts.
pub(crate) const OPTION: &str = "supervised";

/// The grace of a worker whose parent is gone.
pub(super) const ORPHAN_GRACE: Duration = Duration::from_secs(3);

/// The time for a worker to end once its parent is gone, a second more than its grace by then.
const ORPHAN_END: Duration = Duration::from_secs(4);

/// The time from one sign that the runtime runs to the next.
const BEAT: Duration = Duration::from_secs(1);

/// The most requests of the parent that wait: it sends one or two to a worker. Further ones are dropped.
const REQUESTS: usize = 16;

/// So much likelier than its parent is a worker to be killed where memory is short (`oom_score_adj`).
const OOM_SCORE: i32 = 100;

/// The worker's end of the link, and the part that its parent has given to it.
#[derive(Debug)]
pub(crate) struct Worker {
    link: Arc<WorkerLink>,
    handover: Handover,
}

/// The parent of a running worker.
#[derive(Debug)]
pub(super) struct Parent {
    pub(super) requests: mpsc::Receiver<ProcessRequest>,
    pub(super) link: Arc<WorkerLink>,
}

impl Worker {
    /// Takes the link from stdin; `None` if there is none.
    pub(super) fn take() -> Result<Option<Self>, LinkError> {
        let taken = WorkerLink::take_stdin()?;
        Ok(taken.map(|(link, handover)| Self { link: Arc::new(link), handover }))
    }

    /// The id of its node.
    pub(crate) fn id(&self) -> &str {
        &self.handover.id
    }

    /// Puts the handover over the worker's own settings, and takes the sockets.
    pub(super) fn prepare(&mut self, settings: &mut Settings) -> Result<Sockets, String> {
        let general = &mut settings.config.general;
        general.roles = self.handover.roles.iter().map(|name| NodeRole::parse(name)).collect::<Result<_, _>>()?;
        if general.threads == 0 {
            general.threads = self.handover.threads;
        }
        let mut socket = |name| self.handover.take(name).map(TcpListener::from);
        let sockets = Sockets { web: socket(Handover::WEB), admin: socket(Handover::ADMIN), is_shared: true };
        if sockets.web.is_none() && general.roles.contains(&NodeRole::Web) {
            return Err("the parent process has handed over no socket for clients".to_owned());
        }
        if sockets.admin.is_none() {
            settings.config.admin.bind = String::new(); // the address that is set is the parent's own
        }
        Ok(sockets)
    }

    /// Says that the settings of this program differ from those that the parent has read when it started.
    pub(super) fn warn_of_other_address(sockets: &Sockets, settings: &Settings) {
        if let Some((parent, own)) = sockets.other_web_addr(&settings.config.web) {
            warn!(%parent, %own, "the settings name another address than the parent listens on: restart the parent");
        }
    }

    /// Receives what the parent requests, and ends this process soon after the parent. In a thread of its own, since it must
    /// work whatever the runtime does.
    pub(super) fn watch(&self) -> io::Result<Parent> {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let link = self.link.clone();
        thread::Builder::new().name("phalanx-parent".to_owned()).spawn(move || watch(&link, &sender))?;
        Ok(Parent { requests, link: self.link.clone() })
    }

    /// Reports to the parent that the node serves, then each second that its runtime runs.
    pub(super) fn report_ready(link: &Arc<WorkerLink>, version: String, running: &RunningApp) {
        let (web, admin) = (running.web_addr(), running.admin_addr());
        // It is the first message, so the link has room for it. If the parent is gone, the other thread says so.
        let _ = link.send(&WorkerMessage::Ready { version, web, admin });
        let (link, load) = (link.clone(), running.load());
        tokio::spawn(async move {
            let mut ticks = interval(BEAT);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let (connections, sockets) = load();
                let _ = link.try_send(&WorkerMessage::Beat { connections, sockets });
            }
        });
    }

    pub(super) fn link(&self) -> Arc<WorkerLink> {
        self.link.clone()
    }

    /// Reports to the parent why the worker ends.
    pub(super) fn report_failure(link: &WorkerLink, reason: &str) {
        let _ = link.try_send(&WorkerMessage::failed(reason)); // if it is gone, none needs the reason
    }

    /// Reports to the parent what the worker has cut off.
    pub(super) fn report_cut(link: &WorkerLink, work: &str) {
        let _ = link.try_send(&WorkerMessage::cut(work));
    }
}

fn watch(link: &WorkerLink, requests: &mpsc::Sender<ProcessRequest>) {
    loop {
        let request = match link.receive() {
            Ok(Some(ParentMessage::Stop { with_all: false })) => ProcessRequest::StopBesideOthers,
            Ok(Some(ParentMessage::Stop { with_all: true })) => ProcessRequest::StopWithAll,
            Ok(Some(ParentMessage::Cut)) => ProcessRequest::Cut,
            Ok(None) | Err(LinkError::Io(_)) => break,
            Err(error) => {
                warn!(%error, "a message of the parent process is not understood");
                continue;
            }
        };
        let _ = requests.try_send(request);
    }
    error!(end = ?ORPHAN_END, "the parent process is gone: this worker stops");
    let _ = requests.try_send(ProcessRequest::StopOrphaned);
    #[expect(clippy::disallowed_methods, reason = "it must not depend on the runtime")]
    thread::sleep(ORPHAN_END);
    let _ = kill_process(getpid(), Signal::KILL); // an exit would run code that may wait for a lock
}

/// Lets the kernel choose this process before its parent where memory is short.
pub(super) fn raise_oom_score() {
    const FILE: &str = "/proc/self/oom_score_adj";
    let score = fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if score.is_some_and(|score| score < OOM_SCORE)
        && let Err(error) = fs::write(FILE, OOM_SCORE.to_string())
    {
        warn!(%error, "{FILE} is not written: the parent may be killed where memory is short");
    }
}
