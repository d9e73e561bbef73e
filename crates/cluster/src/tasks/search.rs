//! Searches lists of jobs.
//!
//! A job in a list has no index by its id: it would cost each enqueue and each success more than the job itself. So Redis looks
//! through the lists, and returns the few entries that contain the id.

use bytes::Bytes;
use phalanx_core::backend::BackendError;
use phalanx_core::bound_reached;

use super::RedisTasks;
use super::call::{ReplyItems, unexpected_reply};

/// Most entries that one call reads: Redis reads as many short ones in about half a millisecond.
const ENTRIES: usize = 500;

/// Lists of one call. Each counts as several entries, so that no more are searched.
const LISTS: usize = 125;

/// Most bytes that one call reads, but for the last entries.
const BYTES: usize = 256 * 1024;

/// Entries that are searched of one list at most, but for the last call.
const MAX_ENTRIES: usize = 1_000_000;

/// The result of a search.
#[derive(Default)]
pub(super) struct SearchResult {
    pub(super) entry: Option<Bytes>,
    /// Some list is longer than what is searched.
    pub(super) is_cut: bool,
    /// The lists that are spoilt.
    pub(super) spoilt: Vec<String>,
}

impl RedisTasks {
    /// Searches lists, one after the other, for an entry that contains the id and matches; the place of its list is known. Lists
    /// are searched from their ends, so that jobs which are fetched meanwhile shift none out of sight.
    pub(super) async fn search_lists(
        &self,
        lists: &[String],
        id: &str,
        matches: impl Fn(usize, &Bytes) -> bool,
    ) -> Result<SearchResult, BackendError> {
        let (mut result, mut first, mut searched) = (SearchResult::default(), 0, 0);
        while first < lists.len() && !id.is_empty() {
            let mut call = self.scripts.find.call(&lists[first..lists.len().min(first + LISTS)]);
            let reply = call.arg(id).arg(searched).arg(ENTRIES).arg(BYTES).run(&self.shared).await?;
            let page =
                FoundPage::read(reply).filter(|page| page.goes_on_from(searched)).ok_or_else(unexpected_reply)?;
            if let Some((_, entry)) = page.found.into_iter().find(|(place, entry)| matches(first + place, entry)) {
                result.entry = Some(entry);
                break;
            }
            result.spoilt.extend(page.spoilt.iter().filter_map(|place| lists.get(first + place)).cloned());
            (first, searched) = (first + page.lists, page.entries);
            if searched >= MAX_ENTRIES {
                bound_reached("task_search");
                result.is_cut = true;
                (first, searched) = (first + 1, 0);
            }
        }
        Ok(result)
    }
}

/// The reply of one call.
struct FoundPage {
    /// How many lists are searched.
    lists: usize,
    /// How many entries of the next one are.
    entries: usize,
    /// Entries that contain the id, with the places of their lists.
    found: Vec<(usize, Bytes)>,
    spoilt: Vec<usize>,
}

impl FoundPage {
    /// Each call searches something: a search ends, whatever replies.
    fn goes_on_from(&self, searched: usize) -> bool {
        (1..=LISTS).contains(&self.lists) || self.lists == 0 && self.entries > searched
    }

    fn read(reply: deadpool_redis::redis::Value) -> Option<Self> {
        let mut items = ReplyItems::of(reply)?;
        let (lists, entries) = (items.number()? as usize, items.number()? as usize);
        let (mut listed, mut named, mut found, mut spoilt) = (items.list()?, items.list()?, Vec::new(), Vec::new());
        while listed.len() > 0 {
            found.push((listed.number()? as usize, listed.bytes()?));
        }
        while named.len() > 0 {
            spoilt.push(named.number()? as usize);
        }
        Some(Self { lists, entries, found, spoilt })
    }
}
