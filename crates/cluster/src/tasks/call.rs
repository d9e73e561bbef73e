//! A call of a script, and its reply.

use bytes::Bytes;
use deadpool_redis::redis::{Cmd, FromRedisValue, Pipeline, Script, ToRedisArgs, Value};
use phalanx_core::backend::BackendError;

use crate::client::RedisClient;
use crate::shared_functions::SharedFunctions;

/// The bytes of a script's call that are reserved before its arguments are known: as many as the allocator hands out at once.
const RESERVED: usize = 1000;

/// The functions that scripts of tasks share.
pub(super) const SHARED: SharedFunctions = SharedFunctions::new(include_str!("../lua/tasks/shared.lua"));

/// The function by which jobs come to their queues.
pub(super) const PLACER: &str = include_str!("../lua/tasks/placer.lua");

/// The functions by which ends of members of batches count.
pub(super) const BATCHES: &str = include_str!("../lua/tasks/batches.lua");

/// A script of tasks, with what it needs of that which they share.
pub(super) struct TaskScript {
    /// Errors of type name it: what the script reads first.
    key: String,
    script: Script,
}

impl TaskScript {
    pub(super) fn new(key: String, text: &str) -> Self {
        Self { key, script: Script::new(&SHARED.before(text)) }
    }

    /// A script that puts jobs into their queues.
    pub(super) fn placing(key: String, text: &str) -> Self {
        Self::new(key, &[PLACER, text].concat())
    }

    /// A script that counts ends of members of batches, and so may put the completion into its queue.
    pub(super) fn counting(key: String, text: &str) -> Self {
        Self::placing(key, &[BATCHES, text].concat())
    }

    pub(super) fn call<K: AsRef<str>>(&self, keys: &[K]) -> ScriptCall<'_> {
        let mut command = Cmd::with_capacity(64, RESERVED);
        command.arg("EVALSHA").arg(self.script.get_hash()).arg(keys.len());
        for key in keys {
            command.arg(key.as_ref());
        }
        ScriptCall { script: self, command }
    }
}

/// A call: the arguments are written into one buffer as they are added.
pub(super) struct ScriptCall<'a> {
    script: &'a TaskScript,
    command: Cmd,
}

impl ScriptCall<'_> {
    pub(super) fn arg<T: ToRedisArgs>(&mut self, arg: T) -> &mut Self {
        self.command.arg(arg);
        self
    }

    pub(super) async fn run<T: FromRedisValue>(&self, client: &RedisClient) -> Result<T, BackendError> {
        client.evaluate(&self.script.key, &self.script.script, &self.command).await
    }
}

impl ScriptCall<'_> {
    /// The same, and then these commands over the same connection.
    pub(super) async fn run_and<T: FromRedisValue, U: FromRedisValue>(
        &self,
        client: &RedisClient,
        then: &Pipeline,
    ) -> Result<(T, Result<U, BackendError>), BackendError> {
        client.evaluate_and(&self.script.key, (&self.script.script, &self.command), then).await
    }
}

/// The items of a list, in their order.
pub(super) struct ReplyItems(std::vec::IntoIter<Value>);

impl ReplyItems {
    pub(super) fn of(value: Value) -> Option<Self> {
        match value {
            Value::Array(items) => Some(Self(items.into_iter())),
            _ => None,
        }
    }

    pub(super) fn bytes(&mut self) -> Option<Bytes> {
        match self.0.next()? {
            Value::BulkString(bytes) => Some(bytes.into()),
            _ => None,
        }
    }

    pub(super) fn text(&mut self) -> Option<String> {
        match self.0.next()? {
            Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        match self.0.next()? {
            Value::Int(number) => u64::try_from(number).ok(),
            _ => None,
        }
    }

    pub(super) fn list(&mut self) -> Option<Self> {
        Self::of(self.0.next()?)
    }

    /// A list that scripts omit if it is seldom needed.
    pub(super) fn list_or_zero(&mut self) -> Option<Option<Self>> {
        match self.0.next()? {
            Value::Int(0) => Some(None),
            list => Self::of(list).map(Some),
        }
    }

    pub(super) fn texts(&mut self) -> Option<Vec<String>> {
        let mut list = self.list()?;
        let mut texts = Vec::with_capacity(list.len());
        while list.len() > 0 {
            texts.push(list.text()?);
        }
        Some(texts)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The error of a reply that is not of the form that its script returns.
pub(super) fn unexpected_reply() -> BackendError {
    BackendError::unavailable("redis replied what no script of tasks returns")
}
