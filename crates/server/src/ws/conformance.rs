//! The stream of frames against the cases of the Autobahn test suite, which kosoku runs as a client.
//!
//! An echo over the node's own listener, handshake, stream and close codes; nothing of the protocol of Phalanx. Compression
//! (12 and 13) is not negotiated, so those cases do not apply.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::StatusCode;
use phalanx_core::config::{ByteSize, Config, Websocket};
use phalanx_core::connection::Frame;
use phalanx_core::protocol::CloseReason;
use phalanx_core::transport::Transport;
use phalanx_core::{Engine, NodeSetup};
use tokio::process::Command;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::handshake::OpeningHandshake;
use super::stream::{FrameStream, reason_of};
use super::write_buffer::WriteBuffer;
use crate::{AppRoutes, Server};

/// The cases without 12 and 13.
const CASES: usize = 301;

/// Accepted later than the suite wishes: tungstenite checks the UTF-8 of a text when a frame of it is complete, and these
/// two cases want a close in the middle of a frame.
const NON_STRICT: [&str; 2] = ["6.4.3", "6.4.4"];

/// Several times what the cases take in a build without optimizations.
const LIMIT: Duration = Duration::from_secs(300);

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    behavior: String,
    behavior_close: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_the_suite_passes() {
    let mut config = Config::default();
    config.web.port = 0;
    config.web.bind = [127, 0, 0, 1].into();
    config.websocket.max_frame_bytes = ByteSize::mib(16); // the largest message of the cases
    let settings = config.websocket.clone();
    let router = Router::new().route("/echo", any(move |request| upgrade(settings.clone(), request)));
    let server = Server::new(AppRoutes { router, ..AppRoutes::default() });
    let engine = Engine::start(NodeSetup::new("conformance", config)).await.unwrap();
    server.start(&engine).await.unwrap();
    let verdicts = run_cases(&format!("ws://{}/echo", server.addr().unwrap())).await;
    let is_good = |verdict: &str| matches!(verdict, "OK" | "INFORMATIONAL");
    let bad = verdicts.iter().filter(|(_, verdict)| !is_good(&verdict.behavior) || !is_good(&verdict.behavior_close));
    let bad: BTreeMap<&str, (&str, &str)> = bad
        .map(|(case, verdict)| (case.as_str(), (verdict.behavior.as_str(), verdict.behavior_close.as_str())))
        .collect();
    assert_eq!((verdicts.len(), bad.keys().copied().collect()), (CASES, BTreeSet::from(NON_STRICT)), "{bad:?}");
    assert!(bad.values().all(|verdict| *verdict == ("NON-STRICT", "OK")), "{bad:?}");
    engine.stop().await;
}

/// Runs all cases against an address, and returns the verdicts.
async fn run_cases(address: &str) -> BTreeMap<String, Verdict> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/conformance/bin/kosoku");
    assert!(program.exists(), "{} is missing: tests/run.sh installs it", program.display());
    let reports = tempfile::tempdir().unwrap();
    let mut cases = Command::new(program);
    cases.args(["-x", "12.*", "-x", "13.*", "-p", "8", "-o"]).arg(reports.path()).arg(address).kill_on_drop(true);
    // The exit code shows failures only; the report has all verdicts.
    let output = timeout(LIMIT, cases.output()).await.expect("the cases end").unwrap();
    let report = std::fs::read(reports.path().join("index.json"))
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let agents: BTreeMap<String, BTreeMap<String, Verdict>> = serde_json::from_slice(&report).unwrap();
    agents.into_values().next().unwrap()
}

async fn upgrade(settings: Websocket, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let Some(opening) = OpeningHandshake::take(&mut parts) else {
        return (StatusCode::UPGRADE_REQUIRED, Body::empty()).into_response();
    };
    let response = opening.response();
    tokio::spawn(async move {
        let upgraded = opening.upgrade.await.unwrap();
        echo(FrameStream::new(upgraded, &settings).unwrap()).await;
    });
    response
}

/// Sends every message back, until one side closes.
async fn echo(mut stream: FrameStream) {
    let reason = loop {
        let sent = match poll_fn(|task| stream.poll_read(task)).await {
            Some(Ok(Message::Text(text))) => send(&mut stream, Frame::Text(text.into())).await,
            Some(Ok(Message::Binary(bytes))) => send(&mut stream, Frame::Binary(bytes)).await,
            Some(Ok(Message::Close(_))) => return drop(stream.reply_to_close().await),
            Some(Ok(_)) => poll_fn(|task| stream.poll_flush(task)).await,
            Some(Err(error)) => break reason_of(&error),
            None => return,
        };
        if sent.is_err() {
            break CloseReason::Broken;
        }
    };
    if reason == CloseReason::Broken
        || !matches!(timeout(Duration::from_secs(2), stream.send_close(reason)).await, Ok(Ok(())))
    {
        stream.reset_on_drop();
    }
}

async fn send(stream: &mut FrameStream, frame: Frame) -> Result<(), Error> {
    let mut frame = Some(frame);
    poll_fn(|task| stream.poll_flush(task)).await?;
    poll_fn(|task| {
        let mut buffer = WriteBuffer::new();
        frame.take().map(|frame| buffer.add(frame));
        Poll::Ready(stream.start_write(&buffer, task))
    })
    .await?;
    poll_fn(|task| stream.poll_flush(task)).await
}
