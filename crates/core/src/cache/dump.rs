//! The dump of a cache: a file with one JSON line per key.

use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Cache, bounded};
use crate::backend::{Dumped, Stored};
use crate::error::ActionError;

impl Cache {
    /// Writes all keys with their ttls to a file, locked or not, one line per key; returns how many. Each key is
    /// written as it was at one moment, but not all at the same moment. The file is replaced as a whole or not at
    /// all.
    ///
    /// # Errors
    ///
    /// `unavailable` if the backend does not answer, `internal` if the file cannot be written.
    pub async fn dump_write(&self, path: &Path) -> Result<u64, ActionError> {
        let (mut lines, mut count, mut from) = (Vec::new(), 0, None);
        loop {
            let page = self.keys("", from.as_deref()).await?;
            for key in page.keys {
                if let Some(dumped) = self.store.dump(&key).await? {
                    serde_json::to_writer(&mut lines, &DumpLine::of(key, dumped)).map_err(ActionError::internal)?;
                    lines.push(b'\n');
                    count += 1;
                }
            }
            match page.next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        let temporary = path.with_extension("part");
        tokio::fs::write(&temporary, lines).await.map_err(ActionError::internal)?;
        tokio::fs::rename(&temporary, path).await.map_err(ActionError::internal)?;
        Ok(count)
    }

    /// Restores the keys that [`Cache::dump_write`] wrote; returns how many. It replaces keys of the same name,
    /// locked or not, and leaves other keys alone. A ttl continues with the time that was left when the file was
    /// written.
    ///
    /// # Errors
    ///
    /// `internal` if the file cannot be read or parsed: nothing is changed then; `unavailable` if the backend does not
    /// answer: the keys before that line of the file are restored.
    pub async fn dump_read(&self, path: &Path) -> Result<u64, ActionError> {
        let text = tokio::fs::read_to_string(path).await.map_err(ActionError::internal)?;
        let lines = text.lines().map(|line| serde_json::from_str::<DumpLine>(line)?.into_dumped());
        let keys = lines.collect::<io::Result<Vec<_>>>().map_err(ActionError::internal)?;
        let count = keys.len() as u64;
        for (key, dumped) in keys {
            self.store.restore(&key, dumped).await?;
        }
        Ok(count)
    }
}

/// A key in a dump file.
#[derive(Serialize, Deserialize)]
struct DumpLine {
    key: String,
    ttl_ms: Option<u64>,
    value: Option<String>,
    list: Option<Vec<String>>,
}

impl DumpLine {
    fn of(key: String, dumped: Dumped) -> Self {
        let ms = |ttl: Option<Duration>| ttl.map(|ttl| ttl.as_millis() as u64);
        match dumped {
            Dumped::Value(Stored { value, ttl }) => {
                Self { key, ttl_ms: ms(ttl), value: Some(STANDARD.encode(value)), list: None }
            }
            Dumped::List(items, ttl) => {
                let items = items.iter().map(|item| STANDARD.encode(item)).collect();
                Self { key, ttl_ms: ms(ttl), value: None, list: Some(items) }
            }
        }
    }

    fn into_dumped(self) -> io::Result<(String, Dumped)> {
        let bytes = |text: String| STANDARD.decode(text).map(Bytes::from).map_err(io::Error::other);
        let ttl = self.ttl_ms.map(Duration::from_millis).map(bounded);
        let dumped = match (self.value, self.list) {
            (Some(value), _) => Dumped::Value(Stored { value: bytes(value)?, ttl }),
            (None, list) => {
                let items = list.unwrap_or_default().into_iter().map(bytes).collect::<io::Result<Vec<_>>>()?;
                Dumped::List(items, ttl)
            }
        };
        Ok((self.key, dumped))
    }
}
