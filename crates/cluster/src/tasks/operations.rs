//! Numbers and lists for operators, and pauses.

use bytes::Bytes;
use deadpool_redis::redis::{cmd, pipe};
use phalanx_core::backend::{BackendError, FailedTake, MOVE_BATCH, OLDEST_QUEUES, TakeOutcome, TaskStats};
use phalanx_core::bound_reached;
use phalanx_core::job::FailedJob;

use super::RedisTasks;
use super::call::unexpected_reply;
use super::enqueue::add_job;
use super::entry::split_counters;
use super::turns::LOOKS;

/// Jobs that one command reads: each may have 1 MiB.
pub(super) const PAGE: usize = 50;

/// The most queues whose lengths are reported.
const MAX_QUEUES: usize = 1000;

/// The lists of a queue, but for those of its keys.
const LISTS: usize = 3;

impl RedisTasks {
    pub(super) async fn read_stats(&self) -> Result<TaskStats, BackendError> {
        let keys = &self.keys;
        let mut queues = self.names(keys.queues()).await?;
        queues.sort_unstable();
        if queues.len() > MAX_QUEUES {
            bound_reached("task_queues");
            queues.truncate(MAX_QUEUES);
        }
        let paused = self.names(keys.paused()).await?;
        let workers = self.names(keys.workers()).await?;
        let classes = self.names(keys.parked()).await?;
        let (mut lengths, mut oldest) = (Vec::with_capacity(queues.len()), Vec::new());
        let (in_turns, mut looks) = (self.queues_in_turns(&queues).await?, 0..OLDEST_QUEUES);
        let listed: Vec<String> = queues.iter().flat_map(|queue| self.lists_of(queue)).collect();
        let sizes = self.sizes("LLEN", &listed).await?;
        for (queue, sizes) in queues.into_iter().zip(sizes.chunks(LISTS)) {
            let (mut lists, mut sizes) = (self.lists_of(&queue).to_vec(), sizes.to_vec());
            if in_turns.contains(&queue) {
                let turns = self.turn_lists(&queue).await?;
                sizes.append(&mut self.sizes("LLEN", &turns).await?);
                lists.extend(turns);
            }
            let length = sizes.iter().sum();
            if length > 0 && looks.next().is_some() {
                let lists = lists.into_iter().zip(sizes).filter(|(_, size)| *size > 0).map(|(list, _)| list);
                let since = self.oldest_of(&lists.collect::<Vec<_>>()).await?;
                oldest.extend(since.map(|since| (queue.clone(), since)));
            }
            lengths.push((queue, length));
        }
        let running: Vec<String> =
            self.runners().await?.iter().map(|name| [&*keys.running_of(), &**name].concat()).collect();
        let parked: Vec<String> = classes.iter().map(|class| [&*keys.parked_of(), &**class].concat()).collect();
        Ok(TaskStats {
            queues: lengths,
            oldest,
            paused,
            in_turns,
            running: self.sum_of("HLEN", &running).await?,
            delayed: self.sum_of("ZCARD", &[keys.delayed()]).await?,
            parked: self.sum_of("LLEN", &parked).await?,
            batches: self.sum_of("ZCARD", &[keys.batches_due()]).await?,
            failed: self.sum_of("LLEN", &[keys.failed()]).await?,
            processed: self.read_number(keys.processed()).await?,
            workers,
        })
    }

    /// The lists of a queue of jobs that take no turns, in the order in which they are fetched.
    pub(super) fn lists_of(&self, queue: &str) -> [String; LISTS] {
        let keys = &self.keys;
        [keys.suspects(), keys.again(), keys.ready()].map(|root| [&*root, queue].concat())
    }

    /// The sum of the sizes of keys; one that is spoilt counts nothing.
    pub(super) async fn sum_of(&self, command: &str, keys: &[String]) -> Result<u64, BackendError> {
        Ok(self.sizes(command, keys).await?.iter().sum())
    }

    /// The sizes of keys, many by one round trip; that of one that is spoilt is 0.
    pub(super) async fn sizes(&self, command: &str, keys: &[String]) -> Result<Vec<u64>, BackendError> {
        let mut sizes = Vec::with_capacity(keys.len());
        for keys in keys.chunks(LOOKS) {
            let mut looks = pipe();
            for key in keys {
                looks.cmd(command).arg(key);
            }
            let replies: Vec<Option<u64>> = self.shared.read_each(command, looks).await?;
            sizes.extend(replies.into_iter().map(Option::unwrap_or_default));
        }
        Ok(sizes)
    }

    async fn read_number(&self, key: String) -> Result<u64, BackendError> {
        match self.shared.read::<Option<String>>(&key, cmd("GET").arg(&key)).await {
            Ok(number) => Ok(number.and_then(|number| number.parse().ok()).unwrap_or(0)),
            Err(BackendError::WrongKind { .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn read_waiting(
        &self,
        queue: &str,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<Bytes>, BackendError> {
        let (mut skip, mut limit, mut texts) = (skip, limit, Vec::new());
        let keys = &self.keys;
        for (root, has_counters) in [(keys.suspects(), true), (keys.again(), true), (keys.ready(), false)] {
            if limit == 0 {
                break;
            }
            let list = [&*root, queue].concat();
            let (mut looks, page) = (pipe(), limit.min(PAGE));
            let last = skip.saturating_add(page) - 1;
            looks.cmd("LLEN").arg(&list).cmd("LRANGE").arg(&list).arg(skip).arg(last);
            let (length, mut entries): (usize, Vec<Vec<u8>>) = self.shared.read_all(&list, &looks).await?;
            if entries.len() == page {
                entries.append(&mut self.read_range(&list, skip.saturating_add(page), limit - page).await?);
            }
            (skip, limit) = (skip.saturating_sub(length), limit - entries.len().min(limit));
            let text = |entry: Vec<u8>| {
                let entry = Bytes::from(entry);
                if has_counters { split_counters(&entry).1 } else { entry }
            };
            texts.extend(entries.into_iter().map(text));
        }
        if limit > 0 {
            self.read_turns(queue, skip, limit, &mut texts).await?;
        }
        Ok(texts)
    }

    pub(super) async fn read_failed(&self, skip: usize, limit: usize) -> Result<Vec<Bytes>, BackendError> {
        let records = self.read_range(&self.keys.failed(), skip, limit).await?;
        Ok(records.into_iter().map(Bytes::from).collect())
    }

    /// Reads entries of a list, page by page: each may have 1 MiB.
    pub(super) async fn read_range(&self, list: &str, skip: usize, limit: usize) -> Result<Vec<Vec<u8>>, BackendError> {
        let mut entries = Vec::new();
        while entries.len() < limit {
            let (from, page) = (skip.saturating_add(entries.len()), PAGE.min(limit - entries.len()));
            let mut range = cmd("LRANGE");
            range.arg(list).arg(from).arg(from.saturating_add(page) - 1);
            let mut more: Vec<Vec<u8>> = self.shared.read(list, &range).await?;
            let is_last = more.len() < page;
            entries.append(&mut more);
            if is_last {
                break;
            }
        }
        Ok(entries)
    }

    pub(super) async fn take_failed_jobs(&self, jobs: &[FailedTake]) -> Result<Vec<TakeOutcome>, BackendError> {
        if jobs.len() > MOVE_BATCH {
            return Err(BackendError::refused(format!("more than {MOVE_BATCH} jobs at once")));
        }
        let keys = &self.keys;
        let mut all = vec![
            keys.unused(),
            keys.failed(),
            keys.failed_ids(),
            keys.queues(),
            keys.delayed(),
            keys.delayed_jobs(),
            keys.ready(),
            keys.again(),
            keys.suspects(),
            keys.unique(),
            keys.deleted(),
            keys.fair(),
            keys.reports(),
        ];
        let retried = jobs.iter().filter_map(|job| job.retry.as_ref());
        all.extend(self.keys_of_tracked(retried));
        let mut call = self.scripts.take_failed.call(&all);
        call.arg(&self.channel);
        for FailedTake { record, retry } in jobs {
            call.arg(&record[..]).arg(FailedJob::read(record).id.unwrap_or_default());
            match retry {
                Some(job) => {
                    call.arg(1);
                    add_job(job, &mut call);
                }
                None => {
                    for _ in 0..7 {
                        call.arg("");
                    }
                }
            }
        }
        let replies: Vec<String> = call.run(&self.shared).await?;
        let outcome = |reply: String| match (&*reply, reply.split_at_checked(1)) {
            ("taken", _) => Ok(TakeOutcome::Taken),
            ("missing", _) => Ok(TakeOutcome::NotFound),
            (_, Some(("=", id))) => Ok(TakeOutcome::Claimed(id.into())),
            (_, Some(("!", key))) => Err(BackendError::WrongKind { key: key.to_owned() }),
            _ => Err(unexpected_reply()),
        };
        replies.into_iter().map(outcome).collect()
    }

    pub(super) async fn pause(&self, queue: &str, is_paused: bool) -> Result<(), BackendError> {
        let command = if is_paused { "SADD" } else { "SREM" };
        self.shared.query::<u64>("paused", cmd(command).arg(self.keys.paused()).arg(queue)).await?;
        if !is_paused {
            self.shared.query::<u64>(&self.channel, cmd("PUBLISH").arg(&self.channel).arg(queue)).await?;
        }
        Ok(())
    }
}
