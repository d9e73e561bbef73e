//! Jobs that take turns by their keys. A resque list has one order, so they are beside it: in a list for each key, and the keys of
//! a queue in a sorted set, by the turns that each has had. All ways to a queue lead there (`placer.lua`).

use bytes::Bytes;
use deadpool_redis::redis::pipe;
use phalanx_core::backend::{BackendError, MAX_TURN_KEYS};
use phalanx_core::bound_reached;

use super::RedisTasks;
use super::call::PLACER;
use super::entry::split_counters;
use super::exchange::{constant, quote};
use crate::keys::Keys;

/// The place in the script that enqueues of the function that puts jobs into their queues. Enqueues of which no job takes turns
/// do not pay for it.
const FUNCTION_HERE: &str = "--[[ turns ]]";

/// Keys that are looked at by one round trip. Redis serves others between any 16 KiB of commands.
pub(super) const LOOKS: usize = 1000;

/// The script that enqueues jobs of which some take turns, by the one that enqueues others.
pub(super) fn enqueue(keys: &Keys, script: &str) -> String {
    let texts = [("AGAIN", keys.again()), ("SUSPECTS", keys.suspects()), ("FAIR", keys.fair())];
    let constants: String = texts.iter().map(|(name, text)| constant(name, &quote(text))).collect();
    let function = [PLACER, "put = placer(KEYS[1], KEYS[4], AGAIN, SUSPECTS, ARGV[2], FAIR)"].concat();
    [&*constants, &*script.replacen(FUNCTION_HERE, &function, 1)].concat()
}

impl RedisTasks {
    /// Those of these queues in which jobs wait that take turns.
    pub(super) async fn queues_in_turns(&self, queues: &[String]) -> Result<Vec<String>, BackendError> {
        let fair = self.keys.fair();
        // The keys of one whose name has a blank could be a list of another.
        let queues: Vec<&String> = queues.iter().filter(|queue| !queue.contains(' ')).collect();
        let mut found = Vec::new();
        for queues in queues.chunks(LOOKS) {
            let mut looks = pipe();
            for queue in queues {
                looks.cmd("EXISTS").arg([&fair, queue.as_str()].concat());
            }
            let there: Vec<bool> = self.shared.read_all(&fair, &looks).await?;
            found.extend(queues.iter().zip(there).filter(|(_, is)| *is).map(|(queue, _)| (*queue).clone()));
        }
        Ok(found)
    }

    /// The lists of the jobs of a queue that take turns, from that of the key that is next.
    pub(super) async fn turn_lists(&self, queue: &str) -> Result<Vec<String>, BackendError> {
        if queue.contains(' ') {
            return Ok(Vec::new());
        }
        let turns = [&*self.keys.fair(), queue].concat();
        let keys = self.ranked_names(turns.clone(), MAX_TURN_KEYS as isize).await?; // one is that of all further ones
        if keys.len() > MAX_TURN_KEYS {
            bound_reached("fair_keys");
        }
        Ok(keys.into_iter().map(|key| [&*turns, " ", &*key].concat()).collect())
    }

    /// Reads the texts of jobs of a queue that take turns.
    pub(super) async fn read_turns(
        &self,
        queue: &str,
        skip: usize,
        limit: usize,
        texts: &mut Vec<Bytes>,
    ) -> Result<(), BackendError> {
        let (mut skip, end) = (skip, texts.len() + limit);
        let lists = self.turn_lists(queue).await?;
        let lengths = self.sizes("LLEN", &lists).await?;
        for (key, length) in lists.iter().zip(lengths) {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if texts.len() >= end {
                break;
            }
            if skip < length {
                let entries = self.read_range(key, skip, end - texts.len()).await?;
                texts.extend(entries.into_iter().map(|entry| split_counters(&entry.into()).1));
            }
            skip = skip.saturating_sub(length);
        }
        Ok(())
    }
}
