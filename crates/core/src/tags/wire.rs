//! Calls of the connections with a tag, and the answers of nodes, as they go over the bus.

use std::collections::HashSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::selection::TaggedConnections;
use crate::id::ConnectionId;
use crate::protocol;
use crate::remote::wire::ReplyMessage;

/// A call of all connections with a tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum TagCall {
    Count,
    List,
    Close { code: u16 },
    Apply { method: String, args: Value },
}

impl TagCall {
    pub(super) fn encode(&self) -> Bytes {
        protocol::encode(self)
    }

    /// Decodes a call; `None` if it is none, or one of a later version.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }
}

/// The answer of one node, or those of several together.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct TagReply {
    pub(super) count: usize,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) failed: usize,
    /// Some of the connections: for a list the first; for a count those whose ids the application gave, which alone may be
    /// on two nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ids: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) results: Vec<(String, ReplyMessage)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Adds up the answers of nodes, as they come: of the ids and results no more is kept than is returned.
#[derive(Debug)]
pub(super) struct TagReplies {
    pub(super) count: usize,
    pub(super) failed: usize,
    pub(super) ids: Vec<ConnectionId>,
    pub(super) results: Vec<(ConnectionId, ReplyMessage)>,
    seen: HashSet<ConnectionId>,
    seen_results: HashSet<ConnectionId>,
    budget: ByteBudget,
}

impl TagReplies {
    /// With at most so many bytes of results.
    pub(super) fn new(max_bytes: u64) -> Self {
        let (ids, results, seen, seen_results) = Default::default();
        Self { count: 0, failed: 0, ids, results, seen, seen_results, budget: ByteBudget::new(max_bytes) }
    }

    /// Adds an answer. A connection that an earlier one had counts once.
    pub(super) fn add(&mut self, answer: TagReply) {
        self.count += answer.count;
        self.failed += answer.failed;
        for id in answer.ids.iter().filter_map(|id| ConnectionId::parse(id).ok()) {
            if !self.seen.insert(id.clone()) {
                self.count = self.count.saturating_sub(1);
            } else if self.ids.len() < TaggedConnections::LISTED {
                self.ids.push(id);
            }
        }
        for (id, result) in answer.results {
            let Ok(id) = ConnectionId::parse(&id) else { continue };
            if !self.seen_results.insert(id.clone()) {
                self.count = self.count.saturating_sub(1);
                self.failed = self.failed.saturating_sub(usize::from(!result.is_ok()));
            } else if self.results.len() < TaggedConnections::RESULTS
                && self.budget.take(id.as_str().len() + result.encode().len())
            {
                self.results.push((id, result));
            }
        }
    }
}

/// Counts the bytes of a list in an answer, which must not be larger than a call may be.
#[derive(Debug)]
pub(super) struct ByteBudget(u64);

impl ByteBudget {
    /// About the bytes of everything beside the list.
    const REST: u64 = 256;

    pub(super) fn new(most: u64) -> Self {
        Self(most.saturating_sub(Self::REST))
    }

    /// Whether so many more bytes, with quotes and a comma, fit.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        match self.0.checked_sub(bytes as u64 + 4) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::remote::error::ApplyError;

    fn answer(ids: &[&str], count: usize) -> TagReply {
        TagReply { count, ids: ids.iter().map(|id| (*id).to_owned()).collect(), ..TagReply::default() }
    }

    #[test]
    fn a_connection_that_two_nodes_list_counts_once() {
        let mut all = TagReplies::new(1 << 20);
        all.add(answer(&["ada", "bob"], 5));
        all.add(answer(&["bob", "cy", "cy"], 3));
        assert_eq!(all.count, 6, "5 and 3, without bob and cy again");
        assert_eq!(all.ids.iter().map(ConnectionId::as_str).collect::<Vec<_>>(), ["ada", "bob", "cy"]);
    }

    #[test]
    fn a_result_of_a_connection_that_two_nodes_have_counts_once() {
        let result = |result: Result<Value, ApplyError>| ("ada".to_owned(), ReplyMessage::from_result(result));
        let of = |result, failed| TagReply { count: 1, failed, results: vec![result], ..TagReply::default() };
        let mut all = TagReplies::new(1 << 20);
        all.add(of(result(Ok(json!(1))), 0));
        all.add(of(result(Err(ApplyError::NotFound)), 1));
        assert_eq!((all.count, all.failed, all.results.len()), (1, 0, 1));
    }

    #[test]
    fn of_many_answers_no_more_is_kept_than_is_returned() {
        let mut all = TagReplies::new(ByteBudget::REST + 4000);
        for node in 0..20 {
            let ids = (0..100).map(|number| format!("c{node}-{number}")).collect();
            let result = |number| (format!("r{node}-{number}"), ReplyMessage::from_result(Ok(json!("x".repeat(500)))));
            let results = (0..10).map(result).collect();
            all.add(TagReply { count: 100, ids, results, ..TagReply::default() });
        }
        assert_eq!((all.count, all.ids.len()), (2000, TaggedConnections::LISTED));
        assert!((1..8).contains(&all.results.len()), "{} results of 500 bytes in 4,000", all.results.len());
    }

    #[test]
    fn a_call_is_the_same_at_both_ends_and_rubbish_is_none() {
        let apply = TagCall::Apply { method: "set".into(), args: json!(["k", [u64::MAX, {}]]) };
        for call in [TagCall::Count, TagCall::List, TagCall::Close { code: 4501 }, apply] {
            assert_eq!(TagCall::decode(&call.encode()), Some(call));
        }
        for rubbish in ["", "null", "{}", r#"{"op":"explode"}"#, r#"{"op":"close","code":"x"}"#, r#"{"op":"apply"}"#] {
            assert_eq!(TagCall::decode(rubbish.as_bytes()), None, "{rubbish}");
        }
    }

    #[test]
    fn a_list_ends_before_its_bytes_are_too_many() {
        let mut budget = ByteBudget::new(ByteBudget::REST + 20);
        assert!(budget.take(6) && budget.take(6));
        assert!(!budget.take(6));
        assert!(!ByteBudget::new(0).take(0));
    }
}
