//! Redis over TLS, with a certificate authority of the cluster itself.

use std::path::Path;
use std::process::{Command, Output};

use phalanx_testkit::{Process, Redis, free_port};
use serde_json::json;
use tempfile::TempDir;

use super::{SOON, apply, nodes_of, until};
use crate::client::Socket;

/// A Redis that also listens with TLS.
struct TlsRedis {
    redis: Redis,
    folder: TempDir,
    port: u16,
}

impl TlsRedis {
    async fn start() -> Self {
        let (redis, folder, port) = (Redis::start().await, tempfile::tempdir().unwrap(), free_port());
        let path = folder.path();
        openssl(path, "-subj /CN=authority -keyout authority.key -out authority.pem");
        let signed = "-CA authority.pem -CAkey authority.key -addext basicConstraints=CA:FALSE";
        openssl(path, &format!("{signed} -subj /CN=redis -addext subjectAltName=IP:127.0.0.1 -keyout key -out cert"));
        let [cert, key] = ["cert", "key"].map(|name| path.join(name).display().to_string());
        let files = format!("tls-cert-file {cert} tls-key-file {key} tls-ca-cert-file {cert}");
        let answer = redis.command(&format!("CONFIG SET {files} tls-auth-clients no tls-port {port}")).await;
        assert_eq!(answer, "+OK\r\n");
        Self { redis, folder, port }
    }

    fn url(&self) -> String {
        format!("rediss://phalanx:secret@127.0.0.1:{}", self.port)
    }

    /// The certificate of the authority that signed this Redis's certificate.
    fn authority(&self) -> String {
        self.folder.path().join("authority.pem").display().to_string()
    }
}

/// Creates a certificate in `folder`.
fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '))
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl is installed: tests/run.sh does it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn nodes_connect_over_tls_when_they_trust_the_authority_of_redis() {
    let secured = TlsRedis::start().await;
    let (url, authority) = (secured.url(), secured.authority());
    let node = async |title| {
        let environment = [("REDIS_URL", url.as_str()), ("SSL_CERT_FILE", &authority), ("PHALANX_TITLE", title)];
        Process::start("tour", &environment).await
    };
    let (one, other) = (node("one").await, node("other").await);
    until("both are listed", SOON, async || nodes_of(one.addr).await.len() == 2).await;
    let socket = Socket::join(other.addr, "defaultRoom").await;
    let details = apply(one.addr, &socket.id(), "details", json!(null)).await;
    assert_eq!(details.json()["result"]["id"], socket.id());
    let clients = secured.redis.command("CLIENT LIST").await;
    let plain = clients.lines().filter(|client| client.contains("user=phalanx"));
    let plain: Vec<_> = plain.filter(|client| !client.contains(&format!("laddr=127.0.0.1:{}", secured.port))).collect();
    assert!(plain.is_empty(), "nodes have only TLS connections: {plain:?}");
}

#[tokio::test]
async fn a_node_that_does_not_trust_its_redis_exits_with_the_reason() {
    let secured = TlsRedis::start().await;
    openssl(secured.folder.path(), "-subj /CN=stranger -keyout stranger.key -out stranger.pem");
    let (url, authority) = (secured.url(), secured.authority().replace("authority", "stranger"));
    let environment =
        [("REDIS_URL", url.as_str()), ("SSL_CERT_FILE", &authority), ("PHALANX__REDIS__BOOT_TIMEOUT", "1s")];
    let Output { status, stdout, stderr } = phalanx_testkit::run("tour", &[], &environment).await;
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    let error = text.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.contains("invalid peer certificate: UnknownIssuer"), "{text}");
    assert!(stdout.is_empty(), "it does not listen");
}
