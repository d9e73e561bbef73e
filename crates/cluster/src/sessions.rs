//! Sessions over Redis: a hash for each, which expires, and a sorted set for those of each user.
//!
//! Redis knows the hashes of ids alone. A script reads or changes a session in one step, and publishes an end or a renewal to
//! the session's tag in the same one: a node that dies has done both or neither. In a Redis Cluster all keys of a cluster are in
//! one slot, at whose server all nodes are subscribed, so a publish of the script reaches them.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use deadpool_redis::redis::{Cmd, FromRedisValue, Script, ScriptInvocation, Value};
use phalanx_core::backend::{
    BackendError, CreatedSession, FROZEN_COPY, ListedSession, NewSession, SessionKey, SessionRenewal,
    SessionRenewalOutcome, SessionStore, SessionUse, SessionWrite, SessionWriteOutcome, StoredSession, UserKey,
};
use phalanx_core::metrics::record_expired_sessions;

use crate::client::RedisClient;
use crate::keys::Keys;
use crate::shared_calls::{SharedCalls, SharedReplies, SharedScript};
use crate::shared_functions::SharedFunctions;

/// The name of the subject in errors: the id of a session stands in none.
const SUBJECT: &str = "a session";

/// The sessions that all nodes share.
pub struct RedisSessions {
    client: RedisClient,
    keys: Keys,
    reads: SharedCalls<SessionReads>,
    create: Script,
    write: Script,
    renew: Script,
    end: Script,
    end_again: Script,
    list: Script,
}

/// A session as the scripts return it: the fields `v n u a r x c`, and its ttl in milliseconds.
type Fields = (Vec<u8>, u64, String, u64, u8, Option<String>, u64, i64);

/// When a session ends, the sessions that were ended for it, and how many of its user had expired.
type Created = (u64, Vec<String>, u64);

impl RedisSessions {
    /// Stores sessions under these keys.
    pub fn new(client: RedisClient, keys: Keys) -> Self {
        let shared = SharedFunctions::new(include_str!("lua/sessions/shared.lua"));
        let script = |text: &str| Script::new(&shared.before(text));
        let read = script(include_str!("lua/sessions/read.lua"));
        let reads = SessionReads { client: client.clone(), keys: keys.clone(), script: read };
        Self {
            reads: SharedCalls::new(reads, client.home()),
            client,
            keys,
            create: script(include_str!("lua/sessions/create.lua")),
            write: script(include_str!("lua/sessions/write.lua")),
            renew: script(include_str!("lua/sessions/renew.lua")),
            end: script(include_str!("lua/sessions/end.lua")),
            end_again: script(include_str!("lua/sessions/end_again.lua")),
            list: script(include_str!("lua/sessions/list.lua")),
        }
    }

    /// A call of a script with the arguments that all have.
    fn call<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut call = script.key(self.keys.unused());
        call.arg(self.keys.sessions()).arg(self.keys.sessions_of_users()).arg(self.keys.tag_prefix());
        call
    }

    /// Ends what the three arguments of the script name. It may run twice: the second time nothing is left.
    async fn run_end(&self, arguments: [String; 3]) -> Result<Option<Vec<SessionKey>>, BackendError> {
        let mut call = self.call(&self.end);
        for argument in arguments {
            call.arg(argument);
        }
        let (ended, expired): (Option<Vec<String>>, u64) = self.client.run_idempotent(SUBJECT, &call).await?;
        record_expired_sessions(expired);
        ended.map(|ended| ended.iter().map(|key| parse_key(key)).collect()).transpose()
    }
}

/// The reads of sessions. Each call of a client with a session has one.
struct SessionReads {
    client: RedisClient,
    keys: Keys,
    script: Script,
}

impl SharedScript for SessionReads {
    type Item = (SessionKey, Option<SessionUse>);
    type Reply = Option<StoredSession>;

    async fn run(&self, items: &[Self::Item]) -> Result<SharedReplies<Self::Reply>, BackendError> {
        let mut sessions = Vec::with_capacity(items.len());
        // One, since all that use sessions have the settings of the node.
        for alike in items.chunk_by(|(_, one), (_, other)| one == other) {
            let mut command = Cmd::with_capacity(9 + alike.len(), 256 + 64 * alike.len());
            command.arg("EVALSHA").arg(self.script.get_hash()).arg(1).arg(self.keys.unused());
            command.arg(self.keys.sessions()).arg(self.keys.sessions_of_users()).arg(self.keys.tag_prefix());
            let using = alike.first().and_then(|(_, using)| *using);
            let (idle, step) = using.map_or((0, 0), |using| (ms(using.idle), ms(using.step)));
            command.arg(idle).arg(step);
            for (key, _) in alike {
                command.arg(&key.digits()[..]);
            }
            let reply: Vec<u8> = self.client.evaluate_idempotent(SUBJECT, &self.script, &command).await?;
            let mut reply = Bytes::from(reply);
            for _ in alike {
                sessions.push(unpack(&mut reply).ok_or_else(unexpected)?);
            }
        }
        Ok(sessions)
    }
}

/// A number as Redis holds it.
fn number(digits: &[u8]) -> Option<u64> {
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Takes a session as the script packs it; `None` if it is not packed so.
fn unpack(reply: &mut Bytes) -> Option<Result<Option<StoredSession>, BackendError>> {
    match reply.try_get_u8().ok()? {
        0 => return Some(Ok(None)),
        1 => {}
        2 => return Some(Err(BackendError::WrongKind { key: SUBJECT.to_owned() })),
        _ => return None,
    }
    let [is_remembered, is_frozen] = [reply.try_get_u8().ok()? == 1, reply.try_get_u8().ok()? == 1];
    let expires_in = reply.try_get_u64().ok()?;
    let mut length = || reply.try_get_u8().ok().map(usize::from);
    let [version, ends_at, user] = [length()?, length()?, length()?];
    let value = reply.try_get_u32().ok()? as usize;
    if reply.len() < version + ends_at + user + value {
        return None;
    }
    let [version, ends_at, user, value] = [version, ends_at, user, value].map(|length| reply.split_to(length));
    // Fields that others have written cost their session alone, not those that are read with it.
    let wrong = Some(Err(BackendError::WrongKind { key: SUBJECT.to_owned() }));
    let (Some(version), Some(ends_at)) = (number(&version), number(&ends_at)) else { return wrong };
    let user = match &user[..] {
        [] => None,
        user => match UserKey::from_hex(user) {
            None => return wrong,
            user => user,
        },
    };
    Some(Ok(Some(StoredSession { value, version, user, ends_at, expires_in, is_remembered, is_frozen })))
}

impl fmt::Debug for RedisSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisSessions")
    }
}

#[async_trait]
impl SessionStore for RedisSessions {
    async fn read(&self, key: SessionKey, using: Option<SessionUse>) -> Result<Option<StoredSession>, BackendError> {
        self.reads.call((key, using)).await
    }

    async fn create(&self, new: NewSession) -> Result<CreatedSession, BackendError> {
        let mut call = self.call(&self.create);
        call.arg(new.key.to_hex()).arg(&*new.value).arg(user_argument(new.user)).arg(u8::from(new.is_remembered));
        call.arg(ms(new.idle)).arg(ms(new.absolute));
        created(self.client.run(SUBJECT, &call).await?)
    }

    async fn write(&self, key: SessionKey, write: SessionWrite) -> Result<SessionWriteOutcome, BackendError> {
        let mut call = self.call(&self.write);
        call.arg(key.to_hex()).arg(&*write.value).arg(optional(write.expected));
        let reply: Vec<Value> = self.client.run(SUBJECT, &call).await?;
        match outcome(&reply)?.as_str() {
            "written" => Ok(SessionWriteOutcome::Written(item(&reply, 1)?)),
            "conflict" => Ok(SessionWriteOutcome::Conflict(stored(item(&reply, 1)?)?)),
            "gone" => Ok(SessionWriteOutcome::Gone),
            _ => Err(unexpected()),
        }
    }

    async fn renew(&self, key: SessionKey, renewal: SessionRenewal) -> Result<SessionRenewalOutcome, BackendError> {
        let mut call = self.call(&self.renew);
        call.arg(key.to_hex()).arg(renewal.key.to_hex()).arg(u8::from(renewal.value.is_some()));
        let (value, user) = renewal.value.unwrap_or_default();
        call.arg(&*value).arg(user_argument(user)).arg(optional(renewal.expected));
        call.arg(optional(renewal.is_remembered.map(u64::from))).arg(ms(renewal.idle));
        call.arg(optional(renewal.absolute.map(ms))).arg(ms(FROZEN_COPY));
        let reply: Vec<Value> = self.client.run_idempotent(SUBJECT, &call).await?;
        match outcome(&reply)?.as_str() {
            "renewed" => {
                let new = created((item(&reply, 1)?, item(&reply, 2)?, item(&reply, 3)?))?;
                Ok(SessionRenewalOutcome::Renewed(new, item::<u8>(&reply, 4)? == 1))
            }
            "conflict" => Ok(SessionRenewalOutcome::Conflict(stored(item(&reply, 1)?)?)),
            "frozen" => Ok(SessionRenewalOutcome::Frozen),
            "gone" => Ok(SessionRenewalOutcome::Gone),
            _ => Err(unexpected()),
        }
    }

    async fn end(&self, key: SessionKey) -> Result<Vec<SessionKey>, BackendError> {
        Ok(self.run_end([key.to_hex(), String::new(), String::new()]).await?.unwrap_or_default())
    }

    async fn list(&self, user: UserKey) -> Result<Vec<ListedSession>, BackendError> {
        let mut call = self.call(&self.list);
        call.arg(user.to_hex());
        let (found, expired): (Vec<(String, u64, u64)>, u64) = self.client.run_idempotent(SUBJECT, &call).await?;
        record_expired_sessions(expired);
        let listed = |(key, created_at, ends_at): (String, u64, u64)| {
            Ok(ListedSession { key: parse_key(&key)?, created_at, ends_at })
        };
        found.into_iter().map(listed).collect()
    }

    async fn end_all(&self, user: UserKey) -> Result<Vec<SessionKey>, BackendError> {
        Ok(self.run_end([String::new(), user.to_hex(), String::new()]).await?.unwrap_or_default())
    }

    async fn end_again(&self, keys: &[SessionKey]) -> Result<Vec<SessionKey>, BackendError> {
        let mut call = self.call(&self.end_again);
        for key in keys {
            call.arg(key.to_hex());
        }
        let ended: Vec<String> = self.client.run_idempotent(SUBJECT, &call).await?;
        ended.iter().map(|key| parse_key(key)).collect()
    }

    async fn end_others(&self, key: SessionKey) -> Result<Option<Vec<SessionKey>>, BackendError> {
        self.run_end([String::new(), String::new(), key.to_hex()]).await
    }
}

fn stored((value, version, user, ends_at, remembered, next, _, left): Fields) -> Result<StoredSession, BackendError> {
    let user = if user.is_empty() { None } else { Some(UserKey::from_hex(&user).ok_or_else(unexpected)?) };
    let (value, expires_in) = (Bytes::from(value), u64::try_from(left).unwrap_or_default());
    let (is_remembered, is_frozen) = (remembered == 1, next.is_some());
    Ok(StoredSession { value, version, user, ends_at, expires_in, is_remembered, is_frozen })
}

fn created((ends_at, ended, expired): Created) -> Result<CreatedSession, BackendError> {
    record_expired_sessions(expired);
    let ended = ended.iter().map(|key| parse_key(key)).collect::<Result<_, _>>()?;
    Ok(CreatedSession { ends_at, ended })
}

fn parse_key(text: &str) -> Result<SessionKey, BackendError> {
    SessionKey::from_hex(text).ok_or_else(unexpected)
}

fn outcome(reply: &[Value]) -> Result<String, BackendError> {
    item(reply, 0)
}

fn item<T: FromRedisValue>(reply: &[Value], index: usize) -> Result<T, BackendError> {
    let item = reply.get(index).cloned().ok_or_else(unexpected)?;
    T::from_redis_value(item).map_err(|_| unexpected())
}

fn unexpected() -> BackendError {
    BackendError::unavailable("redis returned something other than a session")
}

fn user_argument(user: Option<UserKey>) -> String {
    user.map(UserKey::to_hex).unwrap_or_default()
}

fn optional(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
