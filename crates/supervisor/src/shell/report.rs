//! The state of the parent, for commands and operators.

use super::admin::AdminResponse;
use super::control::COMMANDS;
use super::{ParentProcess, clock, memory};
use crate::machine::WorkerState;
use crate::status::{ClusterStatus, RollStatus, WorkerStatus};

impl ParentProcess {
    pub(super) fn status(&self) -> ClusterStatus {
        let now = clock::now().saturating_sub(self.started);
        let (ready, target) = self.supervisor.ready();
        let state = match () {
            () if self.supervisor.is_stopping() => "stopping",
            () if self.supervisor.running_roll().is_some() => "rolling",
            () if ready == 0 => "starting",
            () => "serving",
        };
        let last_roll = self.supervisor.last_roll().map(|end| RollStatus {
            number: end.number,
            result: if end.stopped.is_none() { "completed" } else { "stopped" }.to_owned(),
            reason: end.stopped.clone(),
            seconds_ago: now.saturating_sub(end.at).as_secs(),
        });
        let workers = self.supervisor.workers().filter_map(|(key, worker)| {
            let child = self.children.running.get(&key)?;
            let pid = child.pid.as_raw_nonzero().get().unsigned_abs();
            Some(WorkerStatus {
                id: self.supervisor.id(key),
                pid,
                state: state_name(worker.state).to_owned(),
                reason: worker.failed.clone(),
                roles: self.groups[key.group].roles.clone(),
                version: child.version.clone(),
                uptime_seconds: now.saturating_sub(worker.started).as_secs(),
                restarts: worker.restarts,
                memory_bytes: memory::resident(pid),
                connections: child.connections,
                sockets: child.sockets,
                admin: child.admin,
            })
        });
        ClusterStatus {
            pid: std::process::id(),
            version: self.version.clone(),
            uptime_seconds: now.as_secs(),
            web: self.web_addr,
            admin: self.admin.as_ref().map(|admin| admin.addr),
            ready,
            target,
            state: state.to_owned(),
            last_roll,
            workers: workers.collect(),
        }
    }

    pub(super) fn serve_operators(&mut self, now: std::time::Duration) {
        let Some(mut admin) = self.admin.take() else { return };
        admin.serve(now, |path| self.answer(path));
        self.admin = Some(admin);
    }

    fn answer(&self, path: &str) -> AdminResponse {
        let (ready, target) = self.supervisor.ready();
        match path {
            "/livez" => AdminResponse { status: "200 OK", text: "ok".to_owned() },
            "/readyz" if self.supervisor.is_stopping() => {
                AdminResponse { status: "503 Service Unavailable", text: "stopping".to_owned() }
            }
            "/readyz" => {
                let status = if ready > 0 { "200 OK" } else { "503 Service Unavailable" };
                AdminResponse { status, text: format!("{ready} of {target} workers ready") }
            }
            "/metrics" => AdminResponse { status: "200 OK", text: self.metrics() },
            _ => AdminResponse { status: "404 Not Found", text: "not found".to_owned() },
        }
    }

    /// The metrics of the supervisor. Those of the workers are on their own admin listeners.
    fn metrics(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, samples: &[(&str, u64)]| {
            text.push_str(&format!("# TYPE {name} {kind}\n"));
            for (label, value) in samples {
                text.push_str(&format!("{name}{label} {value}\n"));
            }
        };
        let count = |state: &str| {
            let workers = self.supervisor.workers().filter(|(_, worker)| state_name(worker.state) == state);
            workers.count() as u64
        };
        let states = [
            ("{state=\"booting\"}", count("booting")),
            ("{state=\"ready\"}", count("ready")),
            ("{state=\"hung\"}", count("hung")),
            ("{state=\"stopping\"}", count("stopping")),
        ];
        add("phalanx_supervisor_workers", "gauge", &states);
        add("phalanx_supervisor_target_workers", "gauge", &[("", u64::from(self.supervisor.ready().1))]);
        add("phalanx_supervisor_worker_ends_total", "counter", &[("", self.ends)]);
        let rolls = [("{result=\"completed\"}", self.completed_rolls), ("{result=\"stopped\"}", self.stopped_rolls)];
        add("phalanx_supervisor_rolls_total", "counter", &rolls);
        add("phalanx_supervisor_waiting_commands", "gauge", &[("", self.control.waiting() as u64)]);
        let bound = format!("{{bound=\"{COMMANDS}\"}}");
        add("phalanx_bound_reached_total", "counter", &[(&bound, self.control.beyond)]);
        text
    }
}

fn state_name(state: WorkerState) -> &'static str {
    match state {
        WorkerState::Booting => "booting",
        WorkerState::Ready { .. } => "ready",
        WorkerState::Hung => "hung",
        WorkerState::Stopping => "stopping",
    }
}
