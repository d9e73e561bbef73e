//! The files for deployments, in `config/deploy`: checked by the programs that read them where those exist.

use std::path::{Path, PathBuf};
use std::process::Output;

use phalanx::config::Config;
use phalanx_testkit::{binary, run};
use tokio::process::Command;

const STOP_MARGIN_S: u64 = 10;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/deploy")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// The values of a key in a unit of systemd.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// Runs a program, if it is installed.
async fn run_if_there(program: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(program).args(arguments).kill_on_drop(true).output().await.ok()
}

#[tokio::test]
async fn systemd_understands_the_units() {
    let Some(version) = run_if_there("systemd-analyze", &["--version"]).await else { return };
    let version = String::from_utf8(version.stdout).unwrap();
    let version: u32 = version.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut service = text("app.service").replace("/srv/app/current/app", binary("tour").to_str().unwrap());
    if version < 253 {
        // The change that the guide has for it.
        service = service.replace("Type=notify-reload", "Type=notify");
        service = service.replace("ReloadSignal=SIGUSR2", "ExecReload=/bin/kill -USR2 $MAINPID");
    }
    let units = tempfile::tempdir().unwrap();
    std::fs::write(units.path().join("app.service"), service).unwrap();
    std::fs::write(units.path().join("app.socket"), text("app.socket")).unwrap();
    let paths = ["app.service", "app.socket"].map(|name| units.path().join(name).to_str().unwrap().to_owned());
    let output = run_if_there("systemd-analyze", &["verify", "--man=no", &paths[0], &paths[1]]).await.unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_unit_fits_the_defaults_of_a_node() {
    let (unit, config) = (text("app.service"), Config::default());
    let stop = (config.general.stop_delay + config.general.grace).as_secs() + STOP_MARGIN_S;
    assert_eq!(values(&unit, "TimeoutStopSec"), [stop.to_string()]);
    let expected = [
        ("Type", "notify-reload"),
        ("ReloadSignal", "SIGUSR2"),
        ("KillMode", "mixed"),
        ("OOMPolicy", "continue"),
        ("Restart", "always"),
    ];
    for (key, value) in expected {
        assert_eq!(values(&unit, key), [value], "{key}");
    }
    let files: usize = values(&unit, "LimitNOFILE")[0].parse().unwrap();
    assert!(files > config.web.max_connections + config.websocket.max_connections, "{files}");
    let start: u64 = values(&unit, "TimeoutStartSec")[0].parse().unwrap();
    assert!(start > config.redis.boot_timeout.as_secs(), "{start}");
    let socket = text("app.socket");
    assert_eq!(values(&socket, "FileDescriptorName"), ["web"]);
    assert!(values(&socket, "ListenStream")[0].ends_with(&format!(":{}", config.web.port)), "{socket}");
}

#[tokio::test]
async fn their_variables_are_settings() {
    let unit = text("app.service");
    let of_unit = values(&unit, "Environment").into_iter().map(str::to_owned);
    let dockerfile = text("Dockerfile").replace("\\\n", " ");
    let of_image = dockerfile.lines().filter_map(|line| line.strip_prefix("ENV "));
    let of_image: Vec<String> = of_image.flat_map(str::split_whitespace).map(str::to_owned).collect();
    let nginx = text("nginx.conf").replace("\n#", " ");
    let is_variable = |word: &&str| word.starts_with("PHALANX__");
    let of_proxy =
        nginx.split_whitespace().filter(is_variable).map(|word| word.trim_end_matches([',', '.']).to_owned());
    assert_eq!(of_image.len(), 6, "{of_image:?}");
    for variables in [of_unit.collect::<Vec<_>>(), of_image, of_proxy.collect()] {
        let pairs = variables.iter().map(|variable| variable.split_once('=').unwrap());
        // The folder of the settings is not on this machine.
        let pairs: Vec<(&str, &str)> = pairs.filter(|(name, _)| *name != "PHALANX_CONFIG").collect();
        assert!(pairs.len() >= 3, "{variables:?}");
        let output = run("tour", &["start", "--check"], &pairs).await;
        assert!(output.status.success(), "{variables:?}: {output:?}");
    }
}

#[tokio::test]
async fn their_command_lines_are_understood() {
    let unit = text("app.service");
    let command = values(&unit, "ExecStart")[0].split_whitespace().skip(1).map(str::to_owned);
    let image = text("Dockerfile");
    let of_image = image.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
    for arguments in [command.collect(), serde_json::from_str::<Vec<String>>(of_image).unwrap()] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--help"]).collect();
        let output = run("tour", &arguments, &[]).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert_eq!(arguments[..3], ["start", "cluster", "--workers"]);
    }
}

#[tokio::test]
async fn the_image_runs_the_program_that_it_builds() {
    let dockerfile = text("Dockerfile");
    let last = |instruction: &str| {
        let mut lines = dockerfile.lines().filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
        lines.next_back().unwrap_or_else(|| panic!("{instruction} is missing"))
    };
    let list = |text| serde_json::from_str::<Vec<String>>(text).unwrap();
    assert!(dockerfile.contains(&format!("COPY --from=build /app {}\n", list(last("ENTRYPOINT"))[0])));
    assert_eq!(list(last("CMD")), ["start", "cluster", "--workers", "1"]);
    assert_eq!((last("STOPSIGNAL"), last("USER"), last("EXPOSE")), ("SIGTERM", "app", "8080 9100"));
    let rust = dockerfile.lines().find_map(|line| line.strip_prefix("FROM rust:")).unwrap();
    let minor: u32 = rust.split(['.', '-']).nth(1).unwrap().parse().unwrap();
    assert!(minor >= 90, "{rust} is older than the workspace permits");
}

#[tokio::test]
async fn nginx_and_logrotate_understand_their_files() {
    let (site, rotation) = (text("nginx.conf"), text("logrotate.conf"));
    for part in
        ["keepalive 64;", "proxy_http_version 1.1;", "proxy_request_buffering off;", "$proxy_add_x_forwarded_for;"]
    {
        assert!(site.contains(part), "{part}");
    }
    assert_eq!(site.matches('{').count(), site.matches('}').count());
    assert!(rotation.contains("postrotate") && rotation.contains("--signal=HUP"), "{rotation}");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // Without TLS: a test has no certificate.
    let plain: String = site.lines().filter(|line| !line.contains("ssl_")).map(|line| format!("{line}\n")).collect();
    let whole = format!("events {{}}\npid {};\nhttp {{\n{}\n}}\n", path("pid"), plain.replace("443 ssl", "8443"));
    std::fs::write(path("nginx.conf"), whole).unwrap();
    if let Some(output) = run_if_there("nginx", &["-t", "-c", &path("nginx.conf")]).await {
        assert!(output.status.success(), "{output:?}");
    }
    let arguments = ["-d", "--state", &path("state"), &self::folder().join("logrotate.conf").display().to_string()];
    if let Some(output) = run_if_there("logrotate", &arguments).await {
        assert!(output.status.success(), "{output:?}");
    }
}
