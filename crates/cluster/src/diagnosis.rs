//! Questions about a Redis that an operator asks before nodes use it.

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{Cmd, RedisError, Script, Value, cmd};
use phalanx_core::config::Config;
use tokio::time::{Instant, timeout};

use crate::client::RedisClient;
use crate::keys::Keys;
use crate::membership::MARK_TTL;
use crate::server_facts::ServerFacts;

/// The commands of a node, on keys of the diagnosis's own: `{k}` is the start of their names. They come in an order in which
/// each finds a value of its kind. The keys expire, should the last line not be reached.
const COMMANDS: &str = "PING; TIME; SCAN 0 COUNT 1; TYPE {k}n; EXISTS {k}n; GET {k}n; PTTL {k}n;
    SET {k}n 1 PX 10000; INCR {k}n; INCRBY {k}n 1; PEXPIRE {k}n 10000; EXPIRE {k}n 10;
    RPUSH {k}l a; PEXPIRE {k}l 10000; LPUSH {k}l b; LLEN {k}l; LRANGE {k}l 0 0; LINDEX {k}l 0; LPOS {k}l a; LREM {k}l 1 c;
    LTRIM {k}l 0 9; LPOP {k}l;
    HSET {k}h a 1; PEXPIRE {k}h 10000; HSETNX {k}h b 1; HGET {k}h a; HLEN {k}h; HEXISTS {k}h a; HMGET {k}h a b; HGETALL {k}h; HKEYS {k}h; HSCAN {k}h 0;
    HDEL {k}h b; SADD {k}s a b; PEXPIRE {k}s 10000; SCARD {k}s; SISMEMBER {k}s a; SMEMBERS {k}s; SREM {k}s a;
    ZADD {k}z 1 a 2 b; PEXPIRE {k}z 10000; ZCARD {k}z; ZSCORE {k}z a; ZMSCORE {k}z a; ZRANGE {k}z 0 0;
    ZRANGEBYSCORE {k}z 0 1; ZREMRANGEBYSCORE {k}z 1 1; ZREMRANGEBYRANK {k}z 5 6; ZREM {k}z b;
    SETBIT {k}b 0 1; PEXPIRE {k}b 10000; GETBIT {k}b 0;
    DEL {k}n; DEL {k}b; DEL {k}l; DEL {k}h; DEL {k}s; DEL {k}z";

/// A command that Redis did not run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedCommand {
    /// Its name.
    pub command: String,
    /// The reply, or the failure.
    pub reply: String,
    /// The advice to operators; empty if there is none.
    pub advice: String,
}

/// A look at a Redis, over one connection and with the timeout of commands. It changes nothing but keys of its own, which it
/// deletes.
#[derive(Clone, Debug)]
pub struct RedisDiagnosis {
    client: RedisClient,
    keys: Keys,
}

impl RedisDiagnosis {
    /// Prepares a look at the Redis of a cluster; the first question connects. Must be called in a runtime.
    ///
    /// # Errors
    ///
    /// Those of [`backend`](crate::backend).
    pub fn open(url: &str, cluster: &str, config: &Config) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let (client, keys) = crate::open(url, cluster, config)?;
        Ok(Self { client, keys })
    }

    /// Pings; returns the time of the reply.
    ///
    /// # Errors
    ///
    /// The words of the failure.
    pub async fn ping(&self) -> Result<Duration, String> {
        let mut connection = self.connect().await?;
        let start = Instant::now();
        self.send(&mut connection, &cmd("PING")).await?;
        Ok(start.elapsed())
    }

    /// Reads the settings of the server.
    ///
    /// # Errors
    ///
    /// Redis cannot be reached.
    pub async fn facts(&self) -> Result<ServerFacts, String> {
        self.connect().await?;
        Ok(ServerFacts::read(&self.client).await)
    }

    /// Runs each command of a node on a key of each prefix, publishes to a channel and subscribes to two; returns those
    /// that were refused.
    ///
    /// # Errors
    ///
    /// Redis cannot be reached.
    pub async fn refusals(&self) -> Result<Vec<RefusedCommand>, String> {
        let mut connection = self.connect().await?;
        let name = format!("doctor:{}:", std::process::id());
        let mut commands: Vec<Vec<String>> = Vec::new();
        for (number, prefix) in self.keys.prefixes().into_iter().enumerate() {
            let start = format!("{prefix}{name}");
            let all = COMMANDS
                .split(';')
                .map(|line| line.split_whitespace().map(|word| word.replace("{k}", &start)).collect());
            // The rights for commands are those of the first prefix; of the others only the keys.
            let own = |words: &Vec<String>| number == 0 || ["SET", "GET", "DEL"].contains(&words[0].as_str());
            commands.extend(all.filter(own));
        }
        commands.push(vec!["PUBLISH".to_owned(), format!("{}:doctor", self.keys.channels()), "1".to_owned()]);
        let mut refusals = Vec::new();
        for words in commands {
            let mut command = Cmd::new();
            command.arg(&words);
            if let Err(reply) = self.send(&mut connection, &command).await {
                refusals.push(self.refused(&words[0], reply));
            }
        }
        let script = Script::new("return 1");
        let script = timeout(self.client.timeout(), script.invoke_async::<_, Value>(&mut connection)).await;
        let script = script.map_err(|_| self.late())?;
        refusals.extend(script.err().map(|error| self.refused("EVALSHA", words_of(&error))));
        for channel in [self.keys.channels().to_owned(), format!("{}:doctor", self.keys.channels())] {
            refusals.extend(self.subscribe(&channel).await.err().map(|reply| self.refused("SUBSCRIBE", reply)));
        }
        Ok(refusals)
    }

    /// How far the clock of Redis is ahead of this machine's, in milliseconds; the time of the reply is taken off.
    ///
    /// # Errors
    ///
    /// Redis cannot be reached, or refuses.
    pub async fn clock_ahead_ms(&self) -> Result<i64, String> {
        let mut connection = self.connect().await?;
        let (before, start) = (unix_ms(), Instant::now());
        let reply = timeout(self.client.timeout(), cmd("TIME").query_async(&mut connection)).await;
        let (seconds, micros): (i64, i64) = reply.map_err(|_| self.late())?.map_err(|error| words_of(&error))?;
        let middle = before + start.elapsed().as_millis() as i64 / 2;
        Ok(seconds.saturating_mul(1000).saturating_add(micros / 1000).saturating_sub(middle))
    }

    /// The other clusters that used the same prefix in the last minutes.
    ///
    /// # Errors
    ///
    /// Redis cannot be reached, or refuses.
    pub async fn other_clusters(&self) -> Result<Vec<String>, String> {
        let mut connection = self.connect().await?;
        let mut read = cmd("HGETALL");
        let read = timeout(self.client.timeout(), read.arg(self.keys.clusters()).query_async(&mut connection)).await;
        let seen: Vec<(String, i64)> = read.map_err(|_| self.late())?.map_err(|error| words_of(&error))?;
        let oldest = unix_ms() / 1000 - MARK_TTL.as_secs() as i64;
        let others = seen.into_iter().filter(|(cluster, at)| cluster != self.keys.cluster() && *at >= oldest);
        Ok(others.map(|(cluster, _)| cluster).collect())
    }

    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        let connecting = timeout(self.client.timeout(), self.client.multiplexed_connection());
        connecting.await.map_err(|_| self.late())?.map_err(|error| words_of(&error))
    }

    async fn send(&self, connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, String> {
        let reply = timeout(self.client.timeout(), command.query_async(connection));
        reply.await.map_err(|_| self.late())?.map_err(|error| words_of(&error))
    }

    async fn subscribe(&self, channel: &str) -> Result<(), String> {
        let subscribing = async {
            let mut subscriber = self.client.subscriber().await?;
            subscriber.subscribe(channel).await
        };
        let subscribed = timeout(self.client.timeout(), subscribing).await;
        subscribed.map_err(|_| self.late())?.map_err(|error| words_of(&error))
    }

    fn refused(&self, command: &str, reply: String) -> RefusedCommand {
        RefusedCommand { command: command.to_owned(), advice: self.client.advice(&reply), reply }
    }

    fn late(&self) -> String {
        format!("no reply within {:?}", self.client.timeout())
    }
}

/// The words of Redis, without a prefix of the client's.
fn words_of(error: &RedisError) -> String {
    match error.code() {
        Some(code) => format!("{code} {}", error.detail().unwrap_or_default()),
        None => error.to_string(),
    }
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_of_a_node_is_run() {
        let apart = ["select", "evalsha", "script|load", "publish", "subscribe", "unsubscribe"];
        let run = COMMANDS.split(';').filter_map(|line| line.split_whitespace().next()).map(str::to_lowercase);
        let run: BTreeSet<String> = run.chain(apart.map(str::to_owned)).collect();
        let needed = phalanx_testkit::COMMANDS.split_whitespace().map(|name| name.trim_start_matches('+').to_owned());
        assert_eq!(run, needed.collect());
    }
}
