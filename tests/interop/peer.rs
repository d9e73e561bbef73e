//! A real Actionhero node that evaluates code for the tests.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// A limit for every wait.
const SOON: Duration = Duration::from_secs(30);

/// An Actionhero node in a temporary folder. It is killed when this is dropped.
pub(crate) struct Actionhero {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    last_id: u64,
    pub(crate) addr: std::net::SocketAddr,
    folder: TempDir,
}

impl Actionhero {
    /// Starts a node over this Redis. `just interop` has installed Actionhero.
    pub(crate) async fn start(redis: std::net::SocketAddr, token: &str) -> Self {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop/node_modules");
        assert!(installed.join("actionhero").is_dir(), "just interop installs actionhero in {}", installed.display());
        let folder = project(&installed.join("actionhero/dist/config"));
        let errors = std::fs::File::create(folder.path().join("stderr")).unwrap();
        let mut child = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/actionhero.js"))
            .current_dir(folder.path())
            .env("NODE_PATH", &installed)
            .env("PROJECT_ROOT", folder.path())
            .env("REDIS_URL", format!("redis://{redis}/0"))
            .env("PORT", "0")
            .env("ACTIONHERO_CONFIG_OVERRIDES", json!({ "general": { "serverToken": token } }).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .expect("node is installed");
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let addr = ([127, 0, 0, 1], 0).into();
        let mut node = Self { child, stdin, stdout, last_id: 0, addr, folder };
        let port = node.next("port").await["port"].as_u64().unwrap();
        node.addr.set_port(u16::try_from(port).unwrap());
        node
    }

    /// Evaluates code there, as the body of an async function of `api`, `cache`, `chatRoom`, `redis`, `resque` (the
    /// package node-resque) and `args`. An exception becomes the error.
    pub(crate) async fn run(&mut self, code: &str, args: Value) -> Result<Value, String> {
        self.last_id += 1;
        let line = json!({ "id": self.last_id, "code": code, "args": args }).to_string() + "\n";
        self.stdin.write_all(line.as_bytes()).await.unwrap_or_else(|_| panic!("it is running: {}", self.errors()));
        loop {
            let mut answer = self.next("id").await;
            if answer["id"] == self.last_id {
                return match answer["error"].as_str() {
                    Some(error) => Err(error.to_owned()),
                    None => Ok(answer["result"].take()),
                };
            }
        }
    }

    /// Checks that it has not shut down and answers.
    pub(crate) async fn is_alive(&mut self) {
        assert_eq!(self.run("return api.running", json!(null)).await, Ok(json!(true)), "{}", self.errors());
        assert!(self.child.try_wait().unwrap().is_none());
    }

    /// The next line with this field; others are dropped.
    async fn next(&mut self, field: &str) -> Value {
        loop {
            let line = timeout(SOON, self.stdout.next_line()).await.expect("it answers in time").unwrap();
            let line = line.unwrap_or_else(|| panic!("it has ended: {}", self.errors()));
            if let Ok(line) = serde_json::from_str::<Value>(&line)
                && line.get(field).is_some()
            {
                return line;
            }
        }
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }
}

/// A project folder as Actionhero expects it, with its default settings.
fn project(settings: &PathBuf) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("package.json"), r#"{"name":"scratch","version":"1.0.0"}"#).unwrap();
    for name in ["dist/config", "dist/actions", "public", "pids", "log"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    for file in std::fs::read_dir(settings).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), folder.path().join("dist/config").join(file.file_name())).unwrap();
    }
    folder
}
