//! The floor of a task queue: a script that takes a job from a list and notes it in a hash, with a number of calls in flight on
//! one connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::Anyhow;

const TAKE: &str = "local job = redis.call('LPOP', KEYS[1]) redis.call('HSET', KEYS[2], ARGV[1], job) return job";
const FILL: &str =
    "redis.call('DEL', KEYS[1], KEYS[2]) for _ = 1, ARGV[2] do redis.call('RPUSH', KEYS[1], ARGV[1]) end";

/// The keys of the list and of the hash.
const KEYS: [&str; 2] = ["phalanx:tour:bench:list", "phalanx:tour:bench:hash"];

/// The connection of a bare worker.
pub(crate) struct Worker {
    redis: TcpStream,
    /// The job that the list holds.
    job: Vec<u8>,
    /// The name of the script.
    take: String,
}

impl Worker {
    /// Connects a worker for jobs of this text.
    pub(crate) async fn connect(redis: SocketAddr, job: Vec<u8>) -> Result<Self, Anyhow> {
        let redis = TcpStream::connect(redis).await?;
        redis.set_nodelay(true)?;
        let mut worker = Self { redis, job, take: String::new() };
        worker.redis.write_all(&command(&[b"SCRIPT", b"LOAD", TAKE.as_bytes()])).await?;
        let mut reply = [0; 47]; // $40, the name, and two ends of lines
        worker.redis.read_exact(&mut reply).await?;
        worker.take = String::from_utf8(reply[5..45].to_vec())?;
        Ok(worker)
    }

    /// The microseconds of a job, while it takes `count` of them with `in_flight` calls at a time.
    pub(crate) async fn run(&mut self, count: usize, in_flight: usize) -> Result<f64, Anyhow> {
        let [list, hash] = KEYS.map(str::as_bytes);
        let jobs = count.to_string();
        let fill = command(&[b"EVAL", FILL.as_bytes(), b"2", list, hash, &self.job, jobs.as_bytes()]);
        self.redis.write_all(&fill).await?;
        self.redis.read_exact(&mut [0; 5]).await?; // $-1
        let reply_len = format!("${}\r\n\r\n", self.job.len()).len() + self.job.len();
        let mut buffer = vec![0; reply_len * in_flight];
        let (mut sent, mut taken, mut filled) = (0, 0, 0);
        let started = Instant::now();
        let mut free = in_flight;
        let mut calls = Vec::new();
        while taken < count {
            calls.clear();
            for token in sent..(sent + free).min(count) {
                let token = format!("{token:016}");
                calls.extend(command(&[b"EVALSHA", self.take.as_bytes(), b"2", list, hash, token.as_bytes()]));
            }
            sent = (sent + free).min(count);
            self.redis.write_all(&calls).await?;
            filled += self.redis.read(&mut buffer[filled..]).await?;
            free = filled / reply_len;
            buffer.copy_within(free * reply_len..filled, 0);
            filled -= free * reply_len;
            taken += free;
            if buffer[0] == b'-' {
                return Err(io::Error::other(String::from_utf8_lossy(&buffer).into_owned()).into());
            }
        }
        Ok(started.elapsed().max(Duration::from_nanos(1)).as_secs_f64() * 1e6 / count as f64)
    }
}

/// A command as Redis reads it.
fn command(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend(format!("${}\r\n", argument.len()).bytes());
        bytes.extend_from_slice(argument);
        bytes.extend(b"\r\n");
    }
    bytes
}
