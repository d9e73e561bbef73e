//! Checks of the machine.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::config::{Admin, Config};
use phalanx_server::BACKLOG;
use rustix::process::{Resource, getrlimit};

use super::CheckStatus::{Fail, Ok as Fine, Warn};
use super::{Check, Finding};
use crate::app::unwritable_folders;
use crate::rlimit::{self, OWN_FILES};
use crate::settings::Settings;

/// The time that a stop takes beside the delay and the grace.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The memory of a process beside its connections and bodies, in bytes.
const BASE_MEMORY: u64 = 128 << 20;

/// The memory of an idle socket, with what it has written last, in bytes.
const SOCKET_MEMORY: u64 = 16 << 10;

/// `missing` are the folders of public files that do not exist.
pub(super) fn checks(settings: &Arc<Settings>, missing: Vec<String>) -> Vec<Check> {
    vec![
        check("web port", settings, |settings| {
            port(SocketAddr::new(settings.config.web.bind, settings.config.web.port))
        }),
        check("admin port", settings, |settings| admin_port(&settings.config.admin)),
        check("paths", settings, |settings| paths(settings, missing)),
        check("open files", settings, |settings| open_files(&settings.config, getrlimit(Resource::Nofile).maximum)),
        check("listen queue", settings, |_| listen_queue(&read("/proc/sys/net/core/somaxconn"))),
        check("memory", settings, |settings| memory(&settings.config, memory_limit())),
        check("stop timeout", settings, |settings| stop_timeout(&settings.config, unit_of(&read("/proc/self/cgroup")))),
        check("time zones", settings, |_| {
            Finding::new(Fine, format!("compiled in, {}", phalanx_tasks::TIME_ZONES), "compiled in")
        }),
    ]
}

/// A check that judges what the machine has by the settings, and may block.
fn check(
    name: &'static str,
    settings: &Arc<Settings>,
    judge: impl FnOnce(&Settings) -> Finding + Send + 'static,
) -> Check {
    let settings = settings.clone();
    let judging = tokio::task::spawn_blocking(move || judge(&settings));
    let run = async { judging.await.unwrap_or_else(|error| Finding::new(Fail, error.to_string(), "")) };
    Check { name, run: Box::pin(run) }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn port(addr: SocketAddr) -> Finding {
    let wanted = format!("{addr} is free");
    match TcpListener::bind(addr) {
        Ok(_) => Finding::new(Fine, "free", wanted),
        // The node that is to be replaced may have it.
        Err(error) if error.kind() == ErrorKind::AddrInUse => Finding::skipped("in use, maybe by a node", wanted),
        Err(error) => {
            Finding::new(Fail, error.to_string(), wanted).remedy("choose another address, or a port above 1023")
        }
    }
}

fn admin_port(admin: &Admin) -> Finding {
    match admin.bind.as_str() {
        "" => Finding::skipped("admin.bind is empty", "an address"),
        Admin::AUTO => Finding::new(Fine, "auto: a free port if the usual one is taken", "an address"),
        bind => match admin.addr() {
            Some(addr) => port(addr),
            None => Finding::new(Fail, format!("{bind:?}"), "an address with a port").remedy("set admin.bind"),
        },
    }
}

fn paths(settings: &Settings, missing: Vec<String>) -> Finding {
    let problems: Vec<String> = unwritable_folders(settings).into_iter().chain(missing).collect();
    let wanted = "folders that exist or can be created, and be written";
    if problems.is_empty() {
        return Finding::new(Fine, "all can be used", wanted);
    }
    Finding::new(Fail, problems.join("; "), wanted).remedy("create them for the user of the node")
}

fn open_files(config: &Config, limit: Option<u64>) -> Finding {
    let needed = rlimit::needed(config) as u64;
    let wanted = format!("{needed}: web.max_connections, websocket.max_connections, {OWN_FILES} more");
    match limit {
        Some(limit) if limit < needed => Finding::new(Warn, limit.to_string(), wanted)
            .remedy("LimitNOFILE= in the unit, `ulimit -Hn` in a shell; or lower these bounds"),
        Some(limit) => Finding::new(Fine, limit.to_string(), wanted),
        None => Finding::new(Fine, "no limit", wanted),
    }
}

fn listen_queue(somaxconn: &str) -> Finding {
    let wanted = format!("{BACKLOG}");
    match somaxconn.trim().parse::<i32>() {
        Ok(found) if found < BACKLOG => Finding::new(Warn, found.to_string(), wanted)
            .remedy(format!("sysctl net.core.somaxconn={BACKLOG}: in a rush connections are refused")),
        Ok(found) => Finding::new(Fine, found.to_string(), wanted),
        Err(_) => Finding::skipped("/proc does not say", wanted),
    }
}

/// The limit of this process's cgroup, or of one above it.
fn memory_limit() -> Option<u64> {
    let groups = read("/proc/self/cgroup");
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(group);
    let above = own.ancestors().take_while(|folder| folder.starts_with(root));
    let limits = above.map(|folder| read(folder.join("memory.max")));
    let first_version = read(root.join("memory/memory.limit_in_bytes"));
    let known = limits.chain([first_version]).filter_map(|text| text.trim().parse::<u64>().ok());
    known.filter(|limit| *limit < 1 << 60).min() // the first version writes a large number for none
}

fn memory(config: &Config, limit: Option<u64>) -> Finding {
    let sockets = config.websocket.max_connections as u64 * SOCKET_MEMORY;
    let bodies = config.web.max_bodies_total.as_u64();
    let workers = config.cluster.processes.iter().map(|kind| kind.workers).fold(0, u32::saturating_add).max(1);
    let needed = (BASE_MEMORY + sockets + bodies) * u64::from(workers);
    let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    let (bodies, sockets) = (mib(bodies), mib(sockets));
    let processes = if workers == 1 { "a process".to_owned() } else { format!("{workers} workers") };
    let wanted = format!(
        "{} for {processes}: of each web.max_bodies_total {bodies}, websocket.max_connections {sockets}",
        mib(needed)
    );
    match limit {
        Some(limit) if limit < needed => Finding::new(Warn, mib(limit), wanted)
            .remedy("raise the limit of the container or unit, or lower these bounds"),
        Some(limit) => Finding::new(Fine, mib(limit), wanted),
        None => Finding::new(Fine, "no limit of a cgroup", wanted),
    }
}

/// The systemd service of a process, by its cgroup.
fn unit_of(cgroup: &str) -> Option<String> {
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let unit = group.rsplit('/').find(|name| name.ends_with(".service"))?;
    Some(unit.to_owned())
}

fn stop_timeout(config: &Config, unit: Option<String>) -> Finding {
    let needed = config.general.stop_delay + config.general.grace + STOP_MARGIN;
    let wanted = format!("{} s: general.stop_delay, general.grace and {} s", needed.as_secs(), STOP_MARGIN.as_secs());
    let Some(unit) = unit else {
        return Finding::skipped("this process is in no service of systemd", wanted)
            .remedy("set TimeoutStopSec=, stop_grace_period or terminationGracePeriodSeconds to that");
    };
    let shown = Command::new("systemctl").args(["show", "--property=TimeoutStopUSec", "--value", &unit]).output();
    let text = shown.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    match time_span(&text) {
        Some(time) if time < needed => Finding::new(Warn, format!("{unit}: {text}"), wanted)
            .remedy(format!("TimeoutStopSec={} in the unit", needed.as_secs())),
        Some(_) => Finding::new(Fine, format!("{unit}: {text}"), wanted),
        None => Finding::skipped(format!("systemctl does not say it of {unit}"), wanted),
    }
}

/// Reads a time span of systemd, such as `1min 30s`; `infinity` is the longest.
fn time_span(text: &str) -> Option<Duration> {
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    let mut whole = Duration::ZERO;
    for part in text.split_whitespace() {
        let digits = part.find(|character: char| !character.is_ascii_digit())?;
        let number: u64 = part[..digits].parse().ok()?;
        whole += match &part[digits..] {
            "h" => Duration::from_secs(number * 3600),
            "min" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
    }
    (!text.is_empty()).then_some(whole)
}

#[cfg(test)]
mod tests {
    use phalanx_core::config::{NodeRole, WorkerKind};

    use super::super::CheckStatus::Skipped;
    use super::*;

    #[test]
    fn limits_of_the_machine_are_compared_with_the_settings() {
        let config = Config::default();
        let files = |limit| open_files(&config, limit).status;
        assert_eq!([files(Some(10)), files(Some(10_000_000)), files(None)], [Warn, Fine, Fine]);
        let [queue, more, unknown] = ["128\n", "4096\n", ""].map(|text| listen_queue(text).status);
        assert_eq!([queue, more, unknown], [Warn, Fine, Skipped]);
        let memory = |limit| memory(&config, limit).status;
        assert_eq!([memory(Some(64 << 20)), memory(Some(1 << 40)), memory(None)], [Warn, Fine, Fine]);
        let mut workers = config.clone();
        workers.cluster.processes =
            vec![WorkerKind::new("web", [NodeRole::Web]), WorkerKind::new("jobs", [NodeRole::Worker])];
        let (one, both) = (super::memory(&config, None).wanted, super::memory(&workers, None).wanted);
        assert!(one.contains("for a process") && both.contains("for 2 workers"), "{one}; {both}");
        assert_eq!(stop_timeout(&config, None).status, Skipped);
    }

    #[test]
    fn a_port_in_use_is_no_failure() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        assert_eq!(port(addr).status, Skipped);
        drop(taken);
        assert_eq!(port(addr).status, Fine);
        assert_eq!(port("192.0.2.1:80".parse().unwrap()).status, Fail);
    }

    #[test]
    fn the_unit_and_its_timeout_are_read_as_systemd_writes_them() {
        assert_eq!(unit_of("0::/system.slice/app.service\n").as_deref(), Some("app.service"));
        assert_eq!(unit_of("0::/system.slice/app.service/workers\n").as_deref(), Some("app.service"));
        assert_eq!(unit_of("0::/user.slice/session-1.scope\n"), None);
        for (text, seconds) in [("1min 30s", Some(90)), ("45s", Some(45)), ("1h", Some(3600)), ("", None), ("5", None)]
        {
            assert_eq!(time_span(text), seconds.map(Duration::from_secs), "{text}");
        }
        assert_eq!(time_span("infinity"), Some(Duration::MAX));
    }
}
