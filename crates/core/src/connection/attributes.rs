//! The attributes that an application sets on a connection.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;

/// The attributes that an application sets on a connection.
#[derive(Clone, Debug)]
pub struct Attributes {
    pub(super) map: BTreeMap<String, Value>,
    bytes: usize,
    max_bytes: usize,
}

impl Attributes {
    /// An empty set; all attributes together may have `max_bytes` as JSON.
    pub fn limited(max_bytes: usize) -> Self {
        Self { map: BTreeMap::new(), bytes: 0, max_bytes }
    }

    /// An attribute.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key)
    }

    /// Sets an attribute and returns the one it replaces; `null` removes it.
    ///
    /// # Errors
    ///
    /// `payload_too_large` if all together would be over their limit.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Result<Option<Value>, ActionError> {
        let (key, value) = (key.into(), value.into());
        let cost = |key: &str, value: &Value| key.len() + encoded_len(value);
        let before = self.map.get(&key).map_or(0, |old| cost(&key, old));
        let after = if value.is_null() { 0 } else { cost(&key, &value) };
        let bytes = self.bytes - before + after;
        if bytes > self.max_bytes && after > before {
            bound_reached("websocket.max_attributes");
            let message = "the attributes of a connection are over their limit";
            return Err(ActionError::of(ErrorKind::PayloadTooLarge, message));
        }
        self.bytes = bytes;
        Ok(if value.is_null() { self.map.remove(&key) } else { self.map.insert(key, value) })
    }
}

/// The length of a value as JSON, without writing it anywhere.
fn encoded_len(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_or(usize::MAX / 4, |()| count.0)
}
