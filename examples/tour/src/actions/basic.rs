//! Actions that use only their own node.

use std::io::Read;
use std::time::Duration;

use phalanx::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    id: String,
    generation: String,
    name: String,
    version: String,
    uptime: u64,
    node_status: String,
    problems: Vec<String>,
    connections: usize,
    rooms: usize,
    task_queue_length: u64,
    tasks_quiet: bool,
    #[serde(rename = "memoryMB")]
    memory_mb: f64,
}

/// Returns the identity, health and load of the node.
#[action(get)]
pub(crate) async fn status(ctx: Context) -> Result<Status, ActionError> {
    let problems = ctx.node().health();
    Ok(Status {
        id: ctx.node().id().to_owned(),
        generation: ctx.node().generation().to_string(),
        name: ctx.node().app().to_owned(),
        version: ctx.node().version().to_owned(),
        uptime: ctx.node().uptime().as_millis() as u64,
        node_status: if problems.is_empty() { "Node Healthy" } else { "Node Unhealthy" }.to_owned(),
        problems,
        connections: ctx.connections().count(),
        rooms: ctx.rooms().list().await?.len(),
        task_queue_length: ctx.tasks().stats().await.unwrap_or_default().queues.iter().map(|(_, length)| length).sum(),
        tasks_quiet: ctx.tasks().is_quiet(),
        memory_mb: memory_mb(),
    })
}

/// The resident memory of this process, 0 where `/proc` does not report it.
fn memory_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct RandomNumber {
    random_number: f64,
    string_random_number: String,
}

/// Returns a random number below 1.
#[action(name = "randomNumber", get)]
pub(crate) async fn random_number() -> Result<RandomNumber, ActionError> {
    let random_number: f64 = rand::random();
    Ok(RandomNumber { random_number, string_random_number: format!("Your random number is {random_number}") })
}

#[input]
pub(crate) struct Bound {
    #[validate(range(exclusive_min = 0.0))]
    max: Option<f64>,
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct RandomBelow {
    random_number: f64,
    version: u32,
}

/// Returns a random number below a bound.
#[action(name = "randomNumber", version = 2, get = "/v2/randomNumber")]
pub(crate) async fn random_number_2(input: Bound) -> Result<RandomBelow, ActionError> {
    Ok(RandomBelow { random_number: rand::random::<f64>() * input.max.unwrap_or(1.0), version: 2 })
}

#[input]
pub(crate) struct Nested {
    a: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    b: Option<String>,
}

#[input]
pub(crate) struct Echo {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flag: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nested: Option<Nested>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Vec<Value>>,
}

/// Returns its input as it was decoded.
#[action(
    get,
    post,
    put,
    patch,
    delete,
    get = "/echo/{text}",
    post = "/echo/{text}",
    put = "/echo/{text}",
    patch = "/echo/{text}",
    delete = "/echo/{text}"
)]
pub(crate) async fn echo(input: Echo) -> Result<Echo, ActionError> {
    Ok(input)
}

#[input]
pub(crate) struct Checked {
    #[validate(length(min = 3, max = 32))]
    string: String,
    #[validate(range(min = 1, max = 10))]
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<i64>,
}

/// Returns its input if it is valid.
#[action(name = "validationTest", get, post)]
pub(crate) async fn validation_test(input: Checked) -> Result<Checked, ActionError> {
    Ok(input)
}

#[input]
#[expect(non_snake_case, reason = "a field is named as it is on the wire")]
pub(crate) struct Sleep {
    sleepDuration: Option<u64>,
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct Slept {
    sleep_started: u64,
    sleep_ended: u64,
    sleep_delta: u64,
    sleep_duration: u64,
}

/// Sleeps for the given time, and returns when it started and ended.
#[action(name = "sleepTest", get)]
pub(crate) async fn sleep_test(ctx: Context, input: Sleep) -> Result<Slept, ActionError> {
    let sleep_duration = input.sleepDuration.unwrap_or(1000);
    let sleep_started = ctx.node().now_ms();
    tokio::time::sleep(Duration::from_millis(sleep_duration)).await;
    let sleep_ended = ctx.node().now_ms();
    Ok(Slept { sleep_started, sleep_ended, sleep_delta: sleep_ended.saturating_sub(sleep_started), sleep_duration })
}

/// Blocks the thread that runs it for the given time, by mistake.
#[action(name = "blockTest", get)]
#[expect(clippy::disallowed_methods, reason = "that is what it is for")]
pub(crate) async fn block_test(input: Sleep) -> Result<(), ActionError> {
    std::thread::sleep(Duration::from_millis(input.sleepDuration.unwrap_or(1000)));
    Ok(())
}

#[output]
pub(crate) struct Recursive {
    #[serde(flatten)]
    random: RandomNumber,
    local: bool,
}

/// Calls another action on the same node.
#[action(name = "recursiveAction", get)]
pub(crate) async fn recursive_action(ctx: Context) -> Result<Recursive, ActionError> {
    Ok(Recursive { random: ctx.call::<random_number>(NoInput {}).await?, local: true })
}

#[input]
pub(crate) struct BodyKind {
    /// `bytes`, `file`, `stream` or `endless`.
    kind: String,
}

/// Responds with other content than JSON: bytes, this program's own file, or a stream of ten lines or without an end.
#[action(name = "bodyTest", get = "/bodyTest/{kind}")]
pub(crate) async fn body_test(input: BodyKind) -> Result<Body, ActionError> {
    match input.kind.as_str() {
        "bytes" => Ok(Body::bytes("application/octet-stream", vec![0, 159, 146, 150, b'\n'])),
        "file" => Ok(Body::file(std::env::current_exe().map_err(ActionError::internal)?)),
        "stream" => {
            let lines = (0..10).map(|line| Ok(format!("line {line}\n").into()));
            Ok(Body::stream("text/plain", futures_util::stream::iter(lines)))
        }
        "endless" => {
            let lines = futures_util::stream::unfold(0_u64, |number| async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Ok(format!("line {number}\n").into()), number + 1))
            });
            Ok(Body::stream("text/plain", lines))
        }
        _ => Err(ActionError::not_found("no such kind of body")),
    }
}

/// Panics; the caller receives the error `internal`, and the node keeps running.
#[action(name = "panicTest", get)]
pub(crate) async fn panic_test() -> Result<(), ActionError> {
    panic!("the tour panics on purpose")
}

#[input]
pub(crate) struct File {
    file: Upload,
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct Received {
    name: String,
    size: u64,
    content_type: String,
    sha256: String,
}

/// Receives a file and returns its digest.
#[action(post)]
pub(crate) async fn upload(input: File) -> Result<Received, ActionError> {
    let path = input.file.path().to_owned();
    // Reading and hashing block: they must not run on a thread that serves other calls.
    let digest = tokio::task::spawn_blocking(move || digest_of(&path)).await.map_err(ActionError::internal)?;
    Ok(Received {
        name: input.file.name().to_owned(),
        size: input.file.size(),
        content_type: input.file.content_type().to_owned(),
        sha256: digest.map_err(ActionError::internal)?,
    })
}

fn digest_of(path: &std::path::Path) -> std::io::Result<String> {
    let (mut file, mut digest, mut chunk) = (std::fs::File::open(path)?, Sha256::new(), vec![0; 64 * 1024]);
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => digest.update(&chunk[..count]),
        }
    }
}

#[input]
pub(crate) struct Note {
    note: String,
}

/// Has no route, so it is available over WebSocket only.
#[action(name = "privateNote")]
pub(crate) async fn private_note(input: Note) -> Result<Note, ActionError> {
    Ok(input)
}

#[output]
pub(crate) struct Fine {
    ok: bool,
}

/// Is blocked for WebSocket, so it is available over HTTP only.
#[action(name = "httpOnly", get, block(websocket))]
pub(crate) async fn http_only() -> Result<Fine, ActionError> {
    Ok(Fine { ok: true })
}

/// Answers ten times in ten seconds to each address.
#[action(get, limit = "10/10s")]
pub(crate) async fn limited() -> Result<Fine, ActionError> {
    Ok(Fine { ok: true })
}
