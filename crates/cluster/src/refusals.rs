//! Replies by which Redis refuses a command: their meaning for the caller, and a log line for operators that says what to
//! do about them.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use phalanx_core::backend::BackendError;
use tokio::time::Instant;
use tracing::warn;

use crate::keys::Keys;

/// A refusal is logged again after this time, if it still happens.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The most different refusals that are remembered for that. Beyond it all are forgotten, and logged again.
const MAX_LOGGED: usize = 64;

/// The meaning of a refusal for the connections to the server that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusalMeaning {
    /// It is not the server that the cluster uses, or not any more: another one has to be found.
    WrongServer,
    /// It takes no writes, or nothing at all, for a while. The connections to it are as good as new ones.
    BusyServer,
    /// It does not take this command.
    OfCommand,
}

use RefusalMeaning::{BusyServer, OfCommand, WrongServer};

/// The codes by which Redis refuses before anything ran, also inside a script: before its first write. With the advice to
/// operators.
const CODES: [(&str, RefusalMeaning, &str); 16] = [
    ("READONLY", WrongServer, "this server is a replica: REDIS_URL must lead to the primary"),
    ("MASTERDOWN", WrongServer, "this server is a replica without its primary: REDIS_URL must lead to the primary"),
    ("UNBLOCKED", WrongServer, "this server became a replica: REDIS_URL must lead to the primary"),
    ("NOAUTH", WrongServer, "Redis wants a password: REDIS_URL has none, or it was set while the node ran"),
    ("CLUSTERDOWN", WrongServer, "the Redis Cluster lacks a part: CLUSTER INFO says which"),
    ("MOVED", WrongServer, "REDIS_URL must lead to the server of the Redis Cluster that has the keys of this cluster"),
    ("LOADING", BusyServer, "Redis reads its data; nothing to do"),
    ("BUSY", BusyServer, "a script of another client blocks Redis: SCRIPT KILL ends it"),
    ("MISCONF", BusyServer, "Redis cannot save its data and therefore takes no writes: its log has the reason"),
    ("NOREPLICAS", BusyServer, "fewer replicas are connected than min-replicas-to-write asks for"),
    ("TRYAGAIN", BusyServer, MOVING_SLOT),
    ("ASK", BusyServer, MOVING_SLOT),
    ("OOM", BusyServer, "Redis is full: raise maxmemory, or remove data"),
    ("WRONGPASS", OfCommand, "the user or the password in REDIS_URL is wrong, or the user is switched off"),
    ("NOPERM", OfCommand, ""),
    ("CROSSSLOT", OfCommand, ""),
];

/// The advice while a slot moves.
const MOVING_SLOT: &str = "a slot of the Redis Cluster is being moved: then REDIS_URL must lead to its new server";

/// The advice for a server that does not know SUBSCRIBE.
const NO_SUBSCRIBE: &str =
    "REDIS_URL must lead to Redis itself: Envoy, twemproxy, Codis, Dynomite and other proxies have no SUBSCRIBE";

/// The code of a reply, and its entry in the table.
fn code_of(reply: &str) -> (&str, Option<(RefusalMeaning, &'static str)>) {
    let code = reply.split(' ').next().unwrap_or_default();
    (code, CODES.iter().find(|(known, ..)| *known == code).map(|(_, meaning, advice)| (*meaning, *advice)))
}

impl RefusalMeaning {
    /// The meaning of an error reply.
    pub(crate) fn of(reply: &str) -> Self {
        code_of(reply).1.map_or(OfCommand, |(meaning, _)| meaning)
    }
}

/// Translates an error reply, `CODE and a text`.
pub(crate) fn error_of(reply: &str) -> BackendError {
    let reply = reply.trim();
    let in_script = error_in_script(reply);
    let (code, known) = code_of(in_script.unwrap_or(reply));
    if code == "OOM" {
        return BackendError::Full;
    }
    // A script is recognised by the place that Redis appends. What it did before that place has taken effect.
    if known.is_none() && (in_script.is_some() || reply.contains("script: ")) {
        return BackendError::Failed(reply.into());
    }
    BackendError::refused(in_script.unwrap_or(reply))
}

/// The error of a command in a script, which Redis wraps before 7.0: `ERR Error running script (call to f_0a): `
/// `@user_script:1: ` and, if the command did not run, `@user_script: 1: -`.
pub(crate) fn error_in_script(reply: &str) -> Option<&str> {
    let (_, rest) = reply.strip_prefix("ERR Error running script (call to f_")?.split_once("@user_script:")?;
    let (_line, error) = rest.split_once(": ")?;
    let not_run = error.strip_prefix("@user_script: ").and_then(|rest| rest.split_once(": "));
    let error = not_run.map_or(error, |(_line, error)| error);
    Some(error.strip_prefix('-').unwrap_or(error))
}

/// Records refusals, and logs each once a minute.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// The rights that a user of Redis needs for keys and for channels.
    rights: OnceLock<(String, String)>,
    /// The settings by which all keys share a slot of a Redis in cluster mode.
    one_slot: OnceLock<String>,
    logged: Mutex<HashMap<String, Instant>>,
}

impl Refusals {
    /// Has the log lines about missing rights name those of this cluster.
    pub(crate) fn name_rights(&self, keys: &Keys) {
        let _ = self.rights.set(keys.rights());
        let _ = self.one_slot.set(keys.one_slot());
    }

    /// Counts and logs an error, and returns its meaning, if it is one by which Redis refused.
    pub(crate) fn record(&self, error: &BackendError) -> Option<RefusalMeaning> {
        let reply = match error {
            BackendError::Refused(reply) | BackendError::Failed(reply) => reply.to_string(),
            BackendError::Full => "OOM".to_owned(),
            BackendError::Unavailable(_)
            | BackendError::NotReplicated { .. }
            | BackendError::WrongKind { .. }
            | BackendError::Locked { .. } => return None,
        };
        self.record_reply(&reply);
        Some(RefusalMeaning::of(&reply))
    }

    fn record_reply(&self, reply: &str) {
        let (code, _) = code_of(reply);
        let label = CODES.iter().find(|(known, ..)| *known == code).map_or("other", |(known, ..)| known);
        metrics::counter!("phalanx_redis_refusals_total", "code" => label).increment(1);
        let advice = self.advice(reply);
        if self.is_to_log([code, " ", &advice].concat()) {
            warn!(reply, advice, "redis refuses a command");
        }
    }

    /// The advice to operators for an error reply; empty if there is none.
    pub(crate) fn advice(&self, reply: &str) -> String {
        let (code, known) = code_of(reply);
        match known.map_or("", |(_, advice)| advice) {
            _ if code == "CROSSSLOT" => self.one_slot.get().cloned().unwrap_or_default(),
            "" => self.missing_right(reply),
            advice => advice.to_owned(),
        }
    }

    /// The advice for a reply that says that a right is missing, or the command itself; empty for others.
    fn missing_right(&self, reply: &str) -> String {
        if reply.contains("unknown command") && reply.to_lowercase().contains("subscribe") {
            return NO_SUBSCRIBE.to_owned();
        }
        let (keys, channels) = self.rights.get().cloned().unwrap_or_default();
        let command = reply.split_once("run the '").and_then(|(_, rest)| rest.split_once("' command"));
        match command {
            Some((command, _)) => format!("the user of REDIS_URL needs +{command}"),
            None if reply.contains("channel") => format!("the user of REDIS_URL needs the channels {channels}"),
            None if reply.contains("access") && reply.contains("key") => {
                format!("the user of REDIS_URL needs the keys {keys}")
            }
            None if reply.contains("user executing the script") => {
                "the user of REDIS_URL needs all commands that the guide lists, as scripts run them".to_owned()
            }
            None => String::new(),
        }
    }

    fn is_to_log(&self, reason: String) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.get(&reason).is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return false;
        }
        if logged.len() >= MAX_LOGGED {
            logged.clear();
        }
        logged.insert(reason, Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_refusals_unless_a_script_failed_half_way() {
        for reply in [
            "NOPERM this user has no permissions to run the 'publish' command",
            "READONLY You can't write against a read only replica. script: 0a9f, on @user_script:1.",
            "NOREPLICAS Not enough good replicas to write.",
            "ERR unknown command 'x'",
            "",
        ] {
            assert!(matches!(error_of(reply), BackendError::Refused(_)), "{reply}");
        }
        let full = "OOM command not allowed when used memory > 'maxmemory'. script: 0a9f, on @user_script:1.";
        assert!(matches!(error_of(full), BackendError::Full));
        let wrapped = "ERR Error running script (call to f_0a): @user_script:1: ";
        for (error, code) in [
            ("@user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.", "OOM"),
            ("@user_script: 12: -READONLY You can't write against a read only replica.", "READONLY"),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE"),
        ] {
            let reply = format!("{wrapped}{error}");
            let error = error_in_script(&reply).unwrap();
            assert!(error.starts_with(code), "{error}");
            let is_right = match error_of(&reply) {
                BackendError::Full => code == "OOM",
                BackendError::Refused(reply) => code == "READONLY" && reply.to_string().starts_with(code),
                _ => code == "WRONGTYPE",
            };
            assert!(is_right, "{reply}");
        }
        let half_way = "ERR The user executing the script can't run this command or subcommand script: b6, on @u:1.";
        assert!(matches!(error_of(half_way), BackendError::Failed(_)));
    }

    #[test]
    fn a_missing_right_is_named() {
        let refusals = Refusals::default();
        refusals.name_rights(&Keys::new("actionhero:", "shop"));
        for (reply, right) in [
            ("NOPERM this user has no permissions to run the 'publish' command", "+publish"),
            ("NOPERM User shop has no permissions to run the 'script|load' command", "+script|load"),
            ("NOPERM this user has no permissions to access one of the channels used as arguments", "&shop &shop:*"),
            ("NOPERM No permissions to access a channel", "&shop &shop:*"),
            ("NOPERM No permissions to access a key", "~actionhero:* ~phalanx:shop:* ~resque:*"),
            (
                "ERR The user executing the script can't access at least one of the keys mentioned in the command \
                 arguments script: 0a, on @user_script:1.",
                "~actionhero:* ~phalanx:shop:* ~resque:*",
            ),
            ("ERR The user executing the script can't run this command or subcommand script: b6, on @u:1.", "commands"),
        ] {
            assert!(refusals.missing_right(reply).contains(right), "{reply}: {}", refusals.missing_right(reply));
        }
        let proxied = refusals.missing_right("ERR unknown command 'SUBSCRIBE', with args beginning with: 'shop' ");
        assert!(proxied.contains("proxies have no SUBSCRIBE"), "{proxied}");
        assert_eq!(refusals.missing_right("ERR unknown command 'x'"), "");
        assert_eq!(refusals.missing_right("ERR value is not an integer"), "");
    }

    #[test]
    fn a_refusal_is_logged_once_a_minute_and_few_are_remembered() {
        let refusals = Refusals::default();
        assert!(refusals.is_to_log("a".to_owned()) && !refusals.is_to_log("a".to_owned()));
        for number in 0..2 * MAX_LOGGED {
            assert!(refusals.is_to_log(number.to_string()));
            assert!(refusals.logged.lock().unwrap().len() <= MAX_LOGGED);
        }
    }
}
