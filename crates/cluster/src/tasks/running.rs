//! The attempts of all nodes, for operators.

use deadpool_redis::redis::pipe;
use phalanx_core::Generation;
use phalanx_core::backend::{BackendError, ListedAttempt, OLDEST_BYTES};
use phalanx_core::bound_reached;
use phalanx_core::job::JobText;

use super::RedisTasks;
use super::attempts::{ListedField, split_batch};
use super::entry::{parse_attempt, parse_field, split_counters};
use super::jobs::none_if_spoilt;
use super::operations::PAGE;

impl RedisTasks {
    /// Lists a part of the attempts of all generations. Only the jobs of that part are read, 256 KiB at a time, and of each
    /// only its id and its class are kept.
    pub(super) async fn list_running(&self, skip: usize, limit: usize) -> Result<Vec<ListedAttempt>, BackendError> {
        let (mut skip, mut listed) = (skip, Vec::new());
        let mut runners: Vec<Generation> =
            self.runners().await?.iter().filter_map(|name| Generation::parse(name)).collect();
        runners.sort_unstable();
        for generation in runners {
            if listed.len() >= limit {
                break;
            }
            let running = self.keys.running(generation);
            let length = self.sum_of("HLEN", std::slice::from_ref(&running)).await?;
            if length <= skip as u64 {
                skip -= length as usize;
                continue;
            }
            let fields = none_if_spoilt(self.fields_of(&self.shared, &running).await)?;
            let token = |field: ListedField| {
                let attempt = std::str::from_utf8(&field.name).ok().and_then(parse_field)?;
                Some((attempt.token, field))
            };
            let mut fields: Vec<(u64, ListedField)> = fields.into_iter().filter_map(token).collect();
            fields.sort_unstable_by_key(|(token, _)| *token);
            let page = fields.into_iter().map(|(_, field)| field).skip(skip).take(limit - listed.len());
            skip = 0;
            let page: Vec<ListedField> = page.collect();
            let mut left = &page[..];
            while !left.is_empty() {
                let (batch, others) = split_batch(left);
                left = others;
                let texts = self.jobs_of(&self.shared, &running, batch).await?;
                // One without a text has ended meanwhile.
                let jobs = batch.iter().zip(texts).filter_map(|(field, text)| parse_attempt(&field.name, text?.into()));
                listed.extend(jobs.map(|job| ListedAttempt::read(generation, job)));
            }
        }
        Ok(listed)
    }

    /// Since when the oldest of the jobs at the heads of these lists could begin, in ms.
    pub(super) async fn oldest_of(&self, lists: &[String]) -> Result<Option<u64>, BackendError> {
        let (mut oldest, mut bytes) = (None, 0);
        for lists in lists.chunks(PAGE) {
            if bytes >= OLDEST_BYTES {
                bound_reached("task_heads");
                break;
            }
            let mut looks = pipe();
            for list in lists {
                looks.cmd("LINDEX").arg(list).arg(0);
            }
            let heads: Vec<Option<Option<Vec<u8>>>> = self.shared.read_each("LINDEX", looks).await?;
            for head in heads.into_iter().flatten().flatten() {
                bytes += head.len();
                let since = JobText::read(&split_counters(&head.into()).1).and_then(|text| text.could_begin_at());
                oldest = [oldest, since].into_iter().flatten().min();
            }
        }
        Ok(oldest)
    }
}
