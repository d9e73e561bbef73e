//! The command `doctor`: what a node needs of its machine and its Redis, and what it finds.

use std::fmt::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use futures_util::future::{BoxFuture, join_all};
use serde_json::json;
use tokio::time::timeout;

use super::output::Printed;
use super::{json_option, table};
use crate::app::{App, failed};
use crate::settings::Settings;

mod machine;
mod redis;

/// The time of one check. They run side by side.
const LIMIT: Duration = Duration::from_secs(5);

/// An examination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoctorCommand {
    strict: bool,
    as_json: bool,
}

/// The subcommand for clap.
pub(super) fn clap_command() -> Command {
    let strict = Arg::new("strict").long("strict").action(ArgAction::SetTrue);
    Command::new("doctor")
        .about("Checks what a node needs of its machine and its Redis")
        .arg(strict.help("Ends with exit code 1 for warnings too"))
        .arg(json_option())
}

/// Reads what clap has accepted.
pub(super) fn read(matches: &ArgMatches) -> DoctorCommand {
    DoctorCommand { strict: matches.get_flag("strict"), as_json: matches.get_flag("json") }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CheckStatus {
    Ok,
    Warn,
    Fail,
    /// It cannot be known here.
    Skipped,
}

impl CheckStatus {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skipped => "skipped",
        }
    }
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    status: CheckStatus,
    found: String,
    wanted: String,
    remedy: String,
}

impl Finding {
    fn new(status: CheckStatus, found: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self { status, found: found.into(), wanted: wanted.into(), remedy: String::new() }
    }

    fn skipped(reason: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self::new(CheckStatus::Skipped, reason, wanted)
    }

    /// With a remedy, unless all is well.
    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        if self.status != CheckStatus::Ok {
            self.remedy = remedy.into();
        }
        self
    }
}

/// A check with its name.
struct Check {
    name: &'static str,
    run: BoxFuture<'static, Finding>,
}

/// Runs all checks. Exit codes: 0; 1 if one failed, with `--strict` also if one warns.
pub(crate) fn run(app: &App, mut settings: Settings, command: DoctorCommand) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let missing = app.missing_public_folders(&mut settings);
    let settings = Arc::new(settings);
    let findings = runtime.block_on(async {
        let machine = machine::checks(&settings, missing);
        let checks: Vec<Check> = machine.into_iter().chain(redis::checks(app, &settings)).collect();
        join_all(checks.into_iter().map(async |check| (check.name, within(LIMIT, check.run).await))).await
    });
    runtime.shutdown_background(); // a check may hang
    let is_bad = |finding: &Finding| match finding.status {
        CheckStatus::Fail => true,
        CheckStatus::Warn => command.strict,
        CheckStatus::Ok | CheckStatus::Skipped => false,
    };
    let all_well = !findings.iter().any(|(_, finding)| is_bad(finding));
    let printed = report(&findings, all_well).print(command.as_json);
    if all_well { printed } else { ExitCode::FAILURE }
}

async fn within(limit: Duration, check: BoxFuture<'static, Finding>) -> Finding {
    let late = || Finding::new(CheckStatus::Fail, format!("no result within {limit:?}"), "");
    timeout(limit, check).await.unwrap_or_else(|_| late())
}

fn report(findings: &[(&'static str, Finding)], all_well: bool) -> Printed {
    let cells =
        findings.iter().map(|(name, finding)| [finding.status.as_str(), name, &finding.found].map(str::to_owned));
    let mut text = String::new();
    for (line, (_, finding)) in table::align(&cells.collect::<Vec<_>>()).lines().zip(findings) {
        let _ = writeln!(text, "{line}");
        if matches!(finding.status, CheckStatus::Warn | CheckStatus::Fail) {
            let _ = writeln!(text, "         wanted: {}\n         remedy: {}", finding.wanted, finding.remedy);
        }
    }
    let documents = findings.iter().map(|(name, Finding { status, found, wanted, remedy })| {
        json!({ "check": name, "status": status.as_str(), "found": found, "wanted": wanted, "remedy": remedy })
    });
    let document = json!({ "ok": all_well, "checks": documents.collect::<Vec<_>>() });
    Printed { text, lines: vec![document], has_statuses: true, ..Printed::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_that_hangs_fails() {
        let finding = within(Duration::from_millis(10), Box::pin(std::future::pending())).await;
        assert_eq!((finding.status, &*finding.found), (CheckStatus::Fail, "no result within 10ms"));
    }
}
