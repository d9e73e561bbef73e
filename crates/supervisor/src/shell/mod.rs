//! The parent's process: it carries out the orders of the [`machine`](crate::machine), in one thread that waits for
//! signals, links, control clients, operators and time together.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use tracing::{debug, error, info, warn};

mod accept;
mod admin;
mod children;
mod clock;
mod control;
mod memory;
mod notify;
mod program;
mod report;
mod signals;
mod sockets;

pub use control::{ControlClient, ControlError, ControlReply, ControlRequest, MAX_COMMANDS, MAX_PATH};
pub use program::ProgramName;
pub use signals::BlockedSignals;
pub use sockets::{AdminEndpoint, Endpoint};

use crate::link::{Handover, ParentMessage};
use crate::machine::{
    CHECK_INTERVAL, Group, Level, Limits, MAX_WORKERS, Order, ProgramChoice, RollEnd, ScaleChange, Supervisor, Trigger,
    WorkerEnd, WorkerKey, WorkerSignal,
};
use admin::AdminListener;
use children::Children;
use control::{ControlServer, ControlWait, TOO_MANY_WAIT};
use memory::MemoryEvents;
pub use notify::ServiceManager;
use program::Program;
use sockets::BoundSocket;

/// The role whose workers get the socket for clients.
const WEB: &str = "web";

/// The settings of a parent, which are read at its start only.
#[derive(Debug)]
pub struct ParentSettings {
    /// The version of the application.
    pub version: String,
    /// The program of the workers: that of the parent.
    pub program: ProgramName,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The workers.
    pub groups: Vec<WorkerGroup>,
    /// The index of the group whose number of workers changes by signals and `scale`.
    pub scaled: usize,
    /// The number of threads of a worker's runtime.
    pub threads: usize,
    /// The socket for clients, if a group has the role `web`.
    pub web: Option<Endpoint>,
    /// The parent's admin listener.
    pub admin: Option<AdminEndpoint>,
    /// The path of the control socket, if there is to be one.
    pub control: Option<PathBuf>,
    /// The limits of waits.
    pub limits: Limits,
}

/// Workers with the same roles.
#[derive(Clone, Debug)]
pub struct WorkerGroup {
    /// The workers' ids are this and a number.
    pub prefix: String,
    /// Their roles.
    pub roles: Vec<String>,
    /// How many there are at first.
    pub workers: u32,
}

/// The parts of the parent's process that belong to the application's library.
#[derive(Clone, Copy, Debug)]
pub struct ParentOutput {
    /// Prints the addresses once the first worker is ready.
    pub print_ready: fn(&str),
    /// Reopens the log.
    pub reopen_log: fn(),
}

/// The end of a parent.
#[derive(Debug, PartialEq, Eq)]
pub struct ParentEnd {
    /// The code to exit with.
    pub code: u8,
    /// The reason, if it is an error.
    pub reason: Option<String>,
}

/// The parent.
struct ParentProcess {
    output: ParentOutput,
    version: String,
    name: ProgramName,
    arguments: Vec<OsString>,
    groups: Vec<WorkerGroup>,
    scaled: usize,
    threads: usize,
    started: Duration,
    supervisor: Supervisor,
    children: Children,
    /// The program of the start or of the last completed roll.
    program: Program,
    /// The program of the running roll.
    program_of_roll: Option<Program>,
    web: Option<BoundSocket>,
    web_addr: Option<SocketAddr>,
    /// Whether the service manager has the socket for clients too, and keeps it when all stop.
    is_activated: bool,
    admin: Option<AdminListener>,
    control: ControlServer,
    service_manager: ServiceManager,
    memory: MemoryEvents,
    completed_rolls: u64,
    stopped_rolls: u64,
    ends: u64,
    end: Option<ParentEnd>,
}

/// Runs workers until a signal, a request or an error ends it.
///
/// # Errors
///
/// The reason why it cannot start, such as an address in use or a program that is missing.
pub fn run(settings: ParentSettings, signals: &BlockedSignals, output: ParentOutput) -> Result<ParentEnd, String> {
    let mut parent = ParentProcess::start(settings, output)?;
    let mut next_check = clock::now() + CHECK_INTERVAL;
    let mut triggers = vec![Trigger::Time];
    loop {
        parent.decide(&mut triggers);
        if let Some(end) = parent.end.take() {
            return Ok(end);
        }
        parent.wait(signals, next_check);
        triggers.extend(signals.take());
        parent.children.read_links(&mut triggers);
        let memory = &mut parent.memory;
        parent.children.reap(&mut triggers, || memory.take_rise());
        let now = clock::now();
        if now >= next_check {
            next_check = now + CHECK_INTERVAL;
            triggers.push(Trigger::Check);
        }
        parent.serve_control(now, &mut triggers);
        parent.serve_operators(now);
        triggers.push(Trigger::Time);
    }
}

impl ParentProcess {
    fn start(settings: ParentSettings, output: ParentOutput) -> Result<Self, String> {
        let control = ControlServer::listen(settings.control).map_err(|error| error.to_string())?;
        let program = Program::open(&settings.program)?;
        let is_activated = matches!(settings.web, Some(Endpoint::Inherited(_)));
        let web = match settings.web {
            Some(endpoint) => {
                let named = match &endpoint {
                    Endpoint::Bind(addr) => addr.to_string(),
                    Endpoint::Inherited(_) => "the socket of the service manager".to_owned(),
                };
                let bound = BoundSocket::of(endpoint);
                Some(bound.map_err(|error| format!("cannot listen on {named} (web.bind, web.port): {error}"))?)
            }
            None => None,
        };
        let admin = match settings.admin {
            Some(admin) => {
                let listener = sockets::listen_for_operators(admin).and_then(AdminListener::of);
                Some(listener.map_err(|error| error.to_string())?)
            }
            None => None,
        };
        let groups = settings.groups.iter();
        let groups = groups.map(|group| Group { prefix: group.prefix.clone(), workers: group.workers }).collect();
        Ok(Self {
            output,
            version: settings.version,
            name: settings.program,
            arguments: settings.arguments,
            groups: settings.groups,
            scaled: settings.scaled,
            threads: settings.threads,
            started: clock::now(),
            supervisor: Supervisor::new(groups, settings.scaled, settings.limits),
            children: Children::default(),
            program,
            program_of_roll: None,
            web_addr: web.as_ref().map(|web| web.addr),
            web,
            is_activated,
            admin,
            control,
            service_manager: ServiceManager::of_process(),
            memory: MemoryEvents::of_process(),
            completed_rolls: 0,
            stopped_rolls: 0,
            ends: 0,
            end: None,
        })
    }

    /// Waits until something happens, the next decision is due, or the next check.
    fn wait(&self, signals: &BlockedSignals, next_check: Duration) {
        let now = clock::now();
        let due = self.supervisor.next_due().map(|due| self.started + due);
        let due = due.into_iter().chain([next_check]).min().unwrap_or(next_check);
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        let links = self.children.running.values().filter(|child| !child.is_closed);
        fds.extend(links.map(|child| PollFd::new(&child.link, PollFlags::IN)));
        let control = self.control.interests(now);
        let admin = self.admin.iter().flat_map(|admin| admin.interests(now));
        fds.extend(control.chain(admin).map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)));
        let timeout = due.saturating_sub(now);
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: seconds, tv_nsec: i64::from(timeout.subsec_nanos()) };
        if let Err(error) = poll(&mut fds, Some(&timeout)) {
            debug!(%error, "poll");
        }
    }

    /// Hands the triggers to the decisions, and carries out the orders, which may cause further triggers.
    fn decide(&mut self, triggers: &mut Vec<Trigger>) {
        let mut queue: std::collections::VecDeque<Trigger> = triggers.drain(..).collect();
        while let Some(trigger) = queue.pop_front() {
            if matches!(&trigger, Trigger::Ended(_, end) if !matches!(end, WorkerEnd::Stuck { .. })) {
                self.ends += 1;
            }
            let now = clock::now().saturating_sub(self.started);
            for order in self.supervisor.handle(now, trigger) {
                queue.extend(self.carry_out(order));
            }
        }
        if self.control.is_awaited(ControlWait::Settled) && self.supervisor.is_settled() {
            let (ready, _) = self.supervisor.ready();
            let text = format!("{ready} workers are ready");
            self.control.end_all(ControlWait::Settled, &ControlReply::Done { text });
        }
        let (ready, target) = self.supervisor.ready();
        self.service_manager.show(format!("{ready} of {target} workers ready"));
    }

    fn carry_out(&mut self, order: Order) -> Option<Trigger> {
        match order {
            Order::Start(key, choice) => {
                let reason = self.start_worker(key, choice).err()?;
                return Some(Trigger::Ended(key, WorkerEnd::NotStarted(reason)));
            }
            Order::Stop(key) => self.children.stop(key, ParentMessage::Stop { with_all: false }),
            Order::StopAll(key) if self.is_activated => self.children.signal(key, Signal::TERM),
            Order::StopAll(key) => self.children.stop(key, ParentMessage::Stop { with_all: true }),
            Order::Signal(key, WorkerSignal::Hup) => self.children.signal(key, Signal::HUP),
            Order::Signal(key, WorkerSignal::Abrt) => self.children.signal(key, Signal::ABORT),
            Order::Signal(key, WorkerSignal::Kill) => self.children.signal(key, Signal::KILL),
            Order::Abandon(key) => {
                let pid = self.children.abandon(key)?;
                return Some(Trigger::Ended(key, WorkerEnd::Stuck { pid }));
            }
            Order::Cut(key) => self.children.cut(key),
            Order::OpenProgram => match Program::open(&self.name) {
                Ok(program) => {
                    self.service_manager.reloading(clock::now());
                    self.program_of_roll = Some(program);
                }
                Err(reason) => return Some(Trigger::NoProgram(reason)),
            },
            Order::KeepProgram => {
                if let Some(program) = self.program_of_roll.take() {
                    self.program = program;
                }
            }
            Order::CloseSockets => {
                self.web = None;
                self.service_manager.stopping();
            }
            Order::FirstReady(key) => self.print_ready(key),
            Order::Reopen => {
                (self.output.reopen_log)();
                self.service_manager.reloading(clock::now());
                self.service_manager.ready();
            }
            Order::RollEnded(end) => self.end_roll(end),
            Order::Log(level, text) => {
                match level {
                    Level::Info => info!("{text}"),
                    Level::Warn => warn!("{text}"),
                    Level::Error => error!("{text}"),
                }
                self.control.report(&text);
            }
            Order::Exit(code, reason) => {
                let reply = match &reason {
                    None => ControlReply::Done { text: "all workers have stopped".to_owned() },
                    Some(reason) => ControlReply::Failed { reason: reason.clone() },
                };
                for wait in [ControlWait::Stop, ControlWait::Settled] {
                    self.control.end_all(wait, &reply);
                }
                self.end = Some(ParentEnd { code, reason });
            }
        }
        None
    }

    fn start_worker(&mut self, key: WorkerKey, choice: ProgramChoice) -> Result<(), String> {
        let program = match choice {
            ProgramChoice::Current => &self.program,
            ProgramChoice::OfRoll => self.program_of_roll.as_ref().ok_or("the roll has no program")?,
        };
        let roles = &self.groups[key.group].roles;
        let mut handover = Handover::new(&self.version, &self.supervisor.id(key), roles, self.threads);
        if let Some(web) = self.web.as_ref().filter(|_| roles.iter().any(|role| role == WEB)) {
            handover.add(Handover::WEB, web.share().map_err(|error| error.to_string())?);
        }
        if let Some(admin) = &self.admin {
            let offset = admin_offset(&self.groups, self.scaled, key);
            let socket = sockets::listen_for_worker(admin.addr, offset).map_err(|error| error.to_string())?;
            handover.add(Handover::ADMIN, socket);
        }
        self.children.start(key, program, &self.arguments, &handover)
    }

    fn print_ready(&mut self, key: WorkerKey) {
        let web = self.web_addr.or_else(|| self.children.running.get(&key)?.web);
        let mut text = web.map(|addr| format!("listening on http://{addr}\n")).unwrap_or_default();
        if let Some(admin) = &self.admin {
            text.push_str(&format!("admin on http://{}\n", admin.addr));
        }
        (self.output.print_ready)(&text);
        self.service_manager.ready();
    }

    fn end_roll(&mut self, end: RollEnd) {
        self.program_of_roll = None;
        self.service_manager.ready();
        let reply = match end.stopped {
            None => {
                self.completed_rolls += 1;
                ControlReply::Done { text: format!("roll {} is complete", end.number) }
            }
            Some(reason) => {
                self.stopped_rolls += 1;
                ControlReply::Failed { reason }
            }
        };
        self.control.end_all(ControlWait::Roll(end.number), &reply);
    }

    fn serve_control(&mut self, now: Duration, triggers: &mut Vec<Trigger>) {
        for (client, request) in self.control.serve(now) {
            if self.supervisor.is_stopping() && matches!(request, ControlRequest::Roll | ControlRequest::Scale { .. }) {
                let reason = "all workers are to stop".to_owned();
                self.control.end(client, &ControlReply::Failed { reason });
                continue;
            }
            match request {
                ControlRequest::Status => {
                    let status = self.status();
                    self.control.end(client, &ControlReply::Status(Box::new(status)));
                }
                ControlRequest::Roll => {
                    let roll = ControlWait::Roll(self.supervisor.next_roll());
                    self.wait_or_refuse(client, roll, Trigger::Roll, triggers);
                }
                ControlRequest::Scale { workers } => {
                    if let Err(reason) = self.supervisor.check_target(workers) {
                        self.control.end(client, &ControlReply::Failed { reason });
                        continue;
                    }
                    let scale = Trigger::Scale(ScaleChange::To(workers));
                    self.wait_or_refuse(client, ControlWait::Settled, scale, triggers);
                }
                ControlRequest::Stop => {
                    if !self.control.wait_for(client, ControlWait::Stop) {
                        self.control.end(client, &ControlReply::Done { text: "all workers are to stop".to_owned() });
                    }
                    triggers.push(Trigger::Stop);
                }
                ControlRequest::Reopen => {
                    triggers.push(Trigger::Reopen);
                    self.control.end(client, &ControlReply::Done { text: "logs are reopened".to_owned() });
                }
            }
        }
    }

    /// Begins what a client waits for, unless too many clients wait.
    fn wait_or_refuse(&mut self, client: usize, wait: ControlWait, trigger: Trigger, triggers: &mut Vec<Trigger>) {
        if self.control.wait_for(client, wait) {
            triggers.push(trigger);
        } else {
            self.control.end(client, &ControlReply::Failed { reason: TOO_MANY_WAIT.to_owned() });
        }
    }
}

/// By how much the admin port of a worker is above the parent's: the groups follow each other, each with room for its workers
/// and one for a roll. `None` for a number beyond that, which is given while processes of the group do not end: the next port
/// is that of a worker of the next group.
fn admin_offset(groups: &[WorkerGroup], scaled: usize, key: WorkerKey) -> Option<u32> {
    let room = |index: usize| (if index == scaled { MAX_WORKERS } else { groups[index].workers }) + 1;
    let before: u32 = (0..key.group).map(room).sum();
    (key.number <= room(key.group)).then_some(before + key.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_worker_gets_the_admin_port_of_one_of_another_group() {
        let group = |workers| WorkerGroup { prefix: String::new(), roles: Vec::new(), workers };
        let groups = [group(2), group(1), group(3)];
        let offset = |group, number| admin_offset(&groups, 1, WorkerKey { group, number });
        let offsets = |group| (1..=600).map(move |number| offset(group, number)).collect::<Vec<_>>();
        assert_eq!(offsets(0)[..4], [Some(1), Some(2), Some(3), None]);
        assert_eq!((offset(1, 1), offset(1, 513), offset(1, 514)), (Some(4), Some(516), None));
        assert_eq!(offsets(2)[..5], [Some(517), Some(518), Some(519), Some(520), None]);
        let mut all: Vec<u32> = (0..3).flat_map(offsets).flatten().collect();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
