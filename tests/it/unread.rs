//! Responses that are there before the body of their request was read.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use phalanx::RunningApp;
use phalanx::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::app::{refused, settings};
use crate::client::get;
use crate::cluster::until;

/// A limit for every wait.
const SOON: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Hits(AtomicU64);

/// Counts its calls.
#[action(get)]
async fn hit(_ctx: Context, hits: State<Hits>, _: NoInput) -> Result<u64, ActionError> {
    Ok(hits.0.fetch_add(1, SeqCst) + 1)
}

async fn start() -> RunningApp {
    App::new("unread").state(Hits::default()).actions(actions![refused, hit]).start(settings()).await.unwrap()
}

/// Sends bytes, and returns everything that is answered until the node closes.
async fn exchange(addr: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
    }
    let mut answer = Vec::new();
    timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the node closes").expect("and does not reset");
    String::from_utf8_lossy(&answer).into_owned()
}

fn head(method: &str, headers: &str, length: usize) -> String {
    let form = "content-type: multipart/form-data; boundary=b";
    format!("{method} /api/refused HTTP/1.1\r\nhost: x\r\n{form}\r\n{headers}content-length: {length}\r\n\r\n")
}

const LAST: &[u8] = b"GET /api/hit HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn nothing_that_follows_a_refused_expectation_is_taken_for_a_request() {
    let node = start().await;
    // The first 27 bytes are as long as the body that was announced.
    let smuggled = b"POST /x HTTP/1.1\r\na: bcdefGET /api/hit HTTP/1.1\r\nhost: x\r\n\r\n";
    for method in ["POST", "GET"] {
        let head = head(method, "expect: 100-continue\r\n", 27);
        for body in [&smuggled[..], LAST, b"012345678901234567890123456"] {
            let answer = exchange(node.addr(), &[head.as_bytes(), body, LAST]).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        }
    }
    assert!(exchange(node.addr(), &[LAST]).await.ends_with(r#"{"result":1}"#), "nothing else ran");
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_all_of_its_body_first_reads_the_refusal() {
    let node = start().await;
    let addr = node.addr();
    let piece = vec![b'x'; 1 << 20];
    for (size, is_kept) in [(60 << 10, true), (1 << 20, false), (8 << 20, false), (30 << 20, false), (190 << 20, false)]
    {
        let refusal = tokio::spawn({
            let piece = piece.clone();
            async move {
                let mut stream = TcpStream::connect(addr).await.unwrap();
                stream.write_all(head("POST", "", size).as_bytes()).await.unwrap();
                for start in (0..size).step_by(piece.len()) {
                    stream.write_all(&piece[..piece.len().min(size - start)]).await.unwrap();
                }
                let mut status = [0; 12];
                timeout(SOON, stream.read_exact(&mut status)).await.unwrap().unwrap();
                if is_kept {
                    stream.write_all(LAST).await.unwrap();
                } else {
                    stream.shutdown().await.unwrap();
                }
                let mut rest = Vec::new();
                timeout(SOON, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
                (String::from_utf8_lossy(&status).into_owned(), String::from_utf8_lossy(&rest).into_owned())
            }
        });
        let (status, rest) = refusal.await.unwrap();
        assert_eq!(status, "HTTP/1.1 403", "{size}");
        assert!(rest.contains("connection: close"), "{size}: it, or the response to the request behind it: {rest}");
        assert_eq!(rest.matches("HTTP/1.1 200").count(), usize::from(is_kept), "{size}: {rest}");
    }
    node.stop().await;
}

/// Sends the file to the path, and prints the status.
const WITH_FETCH: &str = "
    const [url, type, path] = process.argv.slice(1);
    const body = require('fs').readFileSync(path);
    fetch(url, { method: 'POST', headers: { 'content-type': type }, body }).then((answer) => console.log(answer.status));
";
const WITH_HTTP_CLIENT: &str = "
import http.client, os, sys, urllib.parse
url, type, path = sys.argv[1:]
url = urllib.parse.urlsplit(url)
connection = http.client.HTTPConnection(url.netloc, timeout=60)
headers = {'content-type': type, 'content-length': str(os.path.getsize(path))}
connection.request('POST', url.path, open(path, 'rb'), headers)
print(connection.getresponse().status)
";

#[tokio::test]
async fn programs_of_others_read_the_refusal_of_a_body_of_any_size() {
    let node = start().await;
    let url = format!("http://{}/api/refused", node.addr());
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let (form, at_path) = ("multipart/form-data; boundary=b", format!("@{path}"));
    let curl =
        ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", &format!("content-type: {form}"), "--data-binary"];
    for size in [60 << 10, 1 << 20, 8 << 20, 30 << 20, 190 << 20] {
        file.as_file().set_len(size).unwrap();
        for (program, arguments) in [
            ("curl", [&curl[..], &[&at_path, "-H", "expect: 100-continue", &url]].concat()),
            ("curl", [&curl[..], &[&at_path, "-H", "expect:", &url]].concat()),
            ("node", vec!["-e", WITH_FETCH, &url, form, path]),
            ("python3", vec!["-c", WITH_HTTP_CLIENT, &url, form, path]),
        ] {
            let output = tokio::process::Command::new(program).args(&arguments).kill_on_drop(true).output();
            let output = timeout(SOON, output).await.unwrap_or_else(|_| panic!("{program} hangs: {size}"));
            let output = output.unwrap_or_else(|error| panic!("tests/run.sh installs {program}: {error}"));
            let (status, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!((status.trim(), errors.trim()), ("403", ""), "{program} {size} {arguments:?}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_request_behind_a_small_refused_body_is_answered_once() {
    let node = start().await;
    for method in ["POST", "GET"] {
        let first = head(method, "", 5);
        let together = [first.as_bytes(), b"hello", LAST].concat();
        for pieces in [&[&together[..]][..], &[first.as_bytes(), b"he", b"llo", LAST]] {
            let answer = exchange(node.addr(), pieces).await;
            assert_eq!(answer.matches("HTTP/1.1 403").count(), 1, "{answer}");
            assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 2, "{answer}");
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_body_that_is_still_drained_keeps_no_permit() {
    let mut config = settings();
    config.web.max_requests = 2;
    let app = App::new("unread").state(Hits::default()).actions(actions![refused, hit]);
    let node = app.start(config).await.unwrap();
    let mut drained = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(node.addr()).await.unwrap();
        stream.write_all(head("POST", "", 9).as_bytes()).await.unwrap();
        let mut status = [0; 12];
        timeout(SOON, stream.read_exact(&mut status)).await.unwrap().unwrap();
        assert_eq!(&status, b"HTTP/1.1 403");
        drained.push(stream);
    }
    // Half the time for which a body is drained.
    let free = async || get(node.addr(), "/api/hit").await.status == 200;
    until("the permits are free", Duration::from_millis(500), free).await;
    node.stop().await;
}

#[tokio::test]
async fn a_response_with_an_upgrade_says_that_it_closes() {
    let node = start().await;
    let request = "GET /ws HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
    let answer = exchange(node.addr(), &[request.as_bytes()]).await;
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(answer.contains("connection: upgrade, close\r\n"), "{answer}");
    node.stop().await;
}
