//! The attempts that are listed under a generation.

use std::collections::HashSet;
use std::sync::Arc;

use deadpool_redis::redis::{Pipeline, cmd, pipe};
use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, FetchedJob, LimitedQueue, MOVE_BATCH};
use tracing::warn;

use super::RedisTasks;
use super::entry::{field_of, parse_attempt};
use super::jobs::id_of;
use super::limits::HELD_TTL_MS;
use crate::client::RedisClient;

/// The most bytes of jobs that are read at once, but for one that has more by itself.
const MAX_BYTES: usize = 256 * 1024;

/// For how long a job that is listed again is tracked, like one that is enqueued.
const TRACKED_TTL_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// A field of the hash of attempts.
#[derive(Debug)]
pub(super) struct ListedField {
    pub(super) name: Vec<u8>,
    /// The bytes of its job.
    length: usize,
}

/// The first fields whose jobs are read at once, and the others.
pub(super) fn split_batch(fields: &[ListedField]) -> (&[ListedField], &[ListedField]) {
    let mut bytes = 0;
    let fits = |field: &&ListedField| {
        bytes += field.length;
        bytes <= MAX_BYTES
    };
    let count = fields.iter().take(MOVE_BATCH).take_while(fits).count();
    fields.split_at(count.max(1).min(fields.len()))
}

impl RedisTasks {
    /// Reads all fields of a hash of attempts.
    pub(super) async fn fields_of(
        &self,
        client: &RedisClient,
        running: &str,
    ) -> Result<Vec<ListedField>, BackendError> {
        let (mut cursor, mut fields, mut known) = ("0".to_owned(), Vec::new(), HashSet::new());
        loop {
            let mut call = self.scripts.fields.call(&[running]);
            let page: (String, Vec<Vec<u8>>, Vec<usize>) = call.arg(&cursor).run(client).await?;
            for (name, length) in page.1.into_iter().zip(page.2) {
                // A scan may return one twice.
                if known.insert(name.clone()) {
                    fields.push(ListedField { name, length });
                }
            }
            if page.0 == "0" {
                return Ok(fields);
            }
            cursor = page.0;
        }
    }

    /// Reads the jobs of these fields; `None` for one that is gone.
    pub(super) async fn jobs_of(
        &self,
        client: &RedisClient,
        running: &str,
        fields: &[ListedField],
    ) -> Result<Vec<Option<Vec<u8>>>, BackendError> {
        let mut looks: Pipeline = pipe();
        for field in fields {
            looks.add_command(cmd("HGET")).arg(running).arg(&field.name);
        }
        client.read_all(running, &looks).await
    }

    /// Reads the attempts of a generation, in the order in which they began.
    pub(super) async fn attempts_of(
        &self,
        client: &RedisClient,
        generation: &str,
    ) -> Result<Vec<FetchedJob>, BackendError> {
        let running = [&self.keys.running_of(), generation].concat();
        let (fields, mut attempts) = (self.fields_of(client, &running).await?, Vec::new());
        let mut left = &fields[..];
        while !left.is_empty() {
            let (batch, others) = split_batch(left);
            left = others;
            for (field, text) in batch.iter().zip(self.jobs_of(client, &running, batch).await?) {
                let Some(text) = text else { continue };
                match parse_attempt(&field.name, text.into()) {
                    Some(attempt) => attempts.push(attempt),
                    None => warn!(running, field = %String::from_utf8_lossy(&field.name), "an attempt is unreadable"),
                }
            }
        }
        attempts.sort_by_key(|job| job.attempt.token);
        Ok(attempts)
    }

    pub(super) async fn list_all_again(
        &self,
        of: Generation,
        attempts: &[FetchedJob],
        limited: &[LimitedQueue],
        tracked: &[Arc<str>],
    ) -> Result<(), BackendError> {
        let keys = &self.keys;
        for batch in attempts.chunks(MOVE_BATCH) {
            let mut call = self.scripts.list_again.call(&[
                keys.unused(),
                keys.leases(),
                keys.running(of),
                keys.names_of(of),
                keys.running_of(),
                keys.held(),
                keys.reports(),
            ]);
            let limited = limited.iter().filter(|limited| limited.limits.running.is_some());
            let limited: Vec<&str> = limited.map(|limited| &*limited.queue).collect();
            call.arg(of.as_str()).arg(HELD_TTL_MS).arg(TRACKED_TTL_MS).arg(limited.len()).arg(limited);
            for job in batch {
                let id = if tracked.is_empty() { None } else { id_of(&job.text) };
                let id = id.filter(|id| tracked.contains(id));
                call.arg(field_of(&job.attempt)).arg(&job.text[..]).arg(id.as_deref().unwrap_or_default());
            }
            call.run::<u64>(&*self.calls.client().await?).await?;
        }
        Ok(())
    }
}
