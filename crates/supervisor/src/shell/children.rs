//! The processes of the workers: their start, their links, their end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use tracing::{debug, warn};

use super::program::Program;
use crate::link::{Handover, LinkError, ParentLink, ParentMessage, Reception, WorkerMessage};
use crate::machine::{Trigger, WorkerEnd, WorkerKey};

/// The most messages of one link that are read at once; the queue of a socket holds fewer.
const MAX_READ: usize = 4096;

/// Malformed messages of a worker that are logged.
const LOGGED: u32 = 3;

/// Malformed messages of a worker until its link is closed.
const MAX_MALFORMED: u32 = 100;

/// The process of a worker.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: Pid,
    pub(super) link: ParentLink,
    /// Whether the worker has closed its end of the link.
    pub(super) is_closed: bool,
    malformed: u32,
    pub(super) version: Option<String>,
    pub(super) web: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) connections: u64,
    pub(super) sockets: u64,
}

/// The processes, by worker.
#[derive(Debug, Default)]
pub(super) struct Children {
    pub(super) running: BTreeMap<WorkerKey, Child>,
    /// Workers that were killed, and that the parent does not wait for.
    stuck: Vec<(WorkerKey, Pid)>,
}

impl Children {
    /// Starts a process with a link on its stdin.
    pub(super) fn start(
        &mut self,
        key: WorkerKey,
        program: &Program,
        arguments: &[std::ffi::OsString],
        handover: &Handover,
    ) -> Result<(), String> {
        let (link, stdin) = ParentLink::with_handover(handover).map_err(|error| error.to_string())?;
        let mut command = program.command(arguments);
        let started = command.stdin(Stdio::from(stdin)).spawn();
        let child = started.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        // The value is dropped without waiting: `reap` waits for all children.
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("the system gave no process id")?;
        self.running.insert(key, Child::of(pid, link));
        Ok(())
    }

    /// Reads all messages of all links.
    pub(super) fn read_links(&mut self, triggers: &mut Vec<Trigger>) {
        for (key, child) in &mut self.running {
            child.read(*key, triggers);
        }
    }

    /// Takes the children that have ended, also those of others that this process inherited.
    pub(super) fn reap(&mut self, triggers: &mut Vec<Trigger>, mut out_of_memory: impl FnMut() -> bool) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            self.take_ended(pid, ExitStatus::from_raw(status.as_raw()), triggers, &mut out_of_memory);
        }
    }

    fn take_ended(
        &mut self,
        pid: Pid,
        status: ExitStatus,
        triggers: &mut Vec<Trigger>,
        mut out_of_memory: impl FnMut() -> bool,
    ) {
        let found = self.running.iter().find(|(_, child)| child.pid == pid).map(|(key, _)| *key);
        let stuck = self.stuck.iter().position(|(_, stuck)| *stuck == pid);
        let key = match (found, stuck) {
            (Some(key), _) => key,
            (None, Some(index)) => self.stuck.swap_remove(index).0,
            (None, None) => {
                return debug!(pid = pid.as_raw_nonzero(), "a process that is no worker has ended");
            }
        };
        if let Some(mut child) = self.running.remove(&key) {
            child.read(key, triggers); // its last words
        }
        let end = match (status.code(), status.signal()) {
            (Some(code), _) => WorkerEnd::Exit(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, number) => WorkerEnd::Signal { number: number.unwrap_or(0), out_of_memory: out_of_memory() },
        };
        triggers.push(Trigger::Ended(key, end));
    }

    /// Goes on without a worker that was killed; returns its process id. Its end is reported all the same, if it comes.
    pub(super) fn abandon(&mut self, key: WorkerKey) -> Option<i32> {
        let pid = self.running.remove(&key)?.pid;
        self.stuck.push((key, pid));
        Some(pid.as_raw_nonzero().get())
    }

    /// Sends a request to stop; TERM to a worker that does not read its link.
    pub(super) fn stop(&self, key: WorkerKey, request: ParentMessage) {
        let Some(child) = self.running.get(&key) else { return };
        if child.link.send(request).is_err() {
            self.signal(key, Signal::TERM);
        }
    }

    pub(super) fn cut(&self, key: WorkerKey) {
        let Some(child) = self.running.get(&key) else { return };
        if let Err(error) = child.link.send(ParentMessage::Cut) {
            debug!(pid = child.pid.as_raw_nonzero(), %error, "a worker does not read its link");
        }
    }

    /// Sends a signal. A child that was not waited for keeps its process id, so the signal cannot reach another
    /// process.
    pub(super) fn signal(&self, key: WorkerKey, signal: Signal) {
        let Some(child) = self.running.get(&key) else { return };
        if let Err(error) = kill_process(child.pid, signal) {
            warn!(pid = child.pid.as_raw_nonzero(), %error, "a worker could not be signalled");
        }
    }
}

impl Child {
    fn of(pid: Pid, link: ParentLink) -> Self {
        Self {
            pid,
            link,
            is_closed: false,
            malformed: 0,
            version: None,
            web: None,
            admin: None,
            connections: 0,
            sockets: 0,
        }
    }

    fn read(&mut self, key: WorkerKey, triggers: &mut Vec<Trigger>) {
        for _ in 0..MAX_READ {
            if self.is_closed {
                return;
            }
            match self.link.receive() {
                Ok(Reception::Message(message)) => triggers.push(self.take(key, message)),
                Ok(Reception::Empty) => return,
                Ok(Reception::Closed) | Err(LinkError::Io(_)) => self.is_closed = true,
                Err(error) => triggers.extend(self.drop_malformed(&error).map(|reason| Trigger::Failed(key, reason))),
            }
        }
    }

    /// Logs a malformed message unless that was done before; returns the reason if it is the one that ends the link.
    fn drop_malformed(&mut self, error: &LinkError) -> Option<String> {
        self.malformed += 1;
        if self.malformed <= LOGGED {
            warn!(pid = self.pid.as_raw_nonzero(), %error, "a worker's message was dropped");
        }
        if self.malformed < MAX_MALFORMED {
            return None;
        }
        let reason = format!("{MAX_MALFORMED} of its messages were malformed, the last one because: {error}");
        warn!(pid = self.pid.as_raw_nonzero(), "the link to a worker is closed: {reason}");
        self.link.close();
        self.is_closed = true;
        Some(reason)
    }

    fn take(&mut self, key: WorkerKey, message: WorkerMessage) -> Trigger {
        match message {
            WorkerMessage::Ready { version, web, admin } => {
                (self.version, self.web, self.admin) = (Some(version), web, admin);
                Trigger::Ready(key)
            }
            WorkerMessage::Failed { reason } => Trigger::Failed(key, reason),
            WorkerMessage::Cut { work } => Trigger::CutWork(key, work),
            WorkerMessage::Beat { connections, sockets } => {
                (self.connections, self.sockets) = (connections, sockets);
                Trigger::Beat(key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_not_waited_for_is_reaped_in_the_end() {
        let key = WorkerKey { group: 0, number: 1 };
        let mut children = Children::default();
        let (link, stdin) = ParentLink::with_handover(&Handover::new("", "", &[], 1)).unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").stdin(stdin).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        children.running.insert(key, Child::of(pid, link));
        assert_eq!(children.abandon(key), Some(pid.as_raw_nonzero().get()));
        assert!(children.running.is_empty() && children.abandon(key).is_none());
        kill_process(pid, Signal::KILL).unwrap();
        let (status, mut triggers) = (child.wait().unwrap(), Vec::new());
        children.take_ended(pid, status, &mut triggers, || false);
        assert!(matches!(triggers[..], [Trigger::Ended(ended, _)] if ended == key), "{triggers:?}");
    }

    #[test]
    fn a_worker_that_sends_rubbish_loses_its_link() {
        let key = WorkerKey { group: 0, number: 1 };
        let (link, stdin) = ParentLink::with_handover(&Handover::new("", "", &[], 1)).unwrap();
        let mut child = Child::of(Pid::INIT, link);
        for _ in 0..MAX_MALFORMED {
            rustix::net::send(&stdin, b"rubbish", rustix::net::SendFlags::empty()).unwrap();
        }
        let mut triggers = Vec::new();
        child.read(key, &mut triggers);
        let [Trigger::Failed(failed, reason)] = &triggers[..] else { panic!("{triggers:?}") };
        assert!(*failed == key && reason.starts_with("100 of its messages were malformed"), "{reason}");
        assert!(child.is_closed && child.malformed == MAX_MALFORMED);
        rustix::net::send(&stdin, b"more", rustix::net::SendFlags::NOSIGNAL).unwrap_err();
    }
}
