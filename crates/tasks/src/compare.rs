//! Compares the store's list of a node's attempts with its slots: answers that were lost, jobs that no slot holds, attempts
//! that the store has lost.

use std::collections::HashSet;
use std::ops::Range;

use phalanx_core::Generation;
use phalanx_core::backend::{FetchedJob, Settlement};

/// The node's side at the moment when the list was requested.
#[derive(Debug)]
pub(crate) struct ListRequest {
    /// The generation whose attempts are listed.
    pub(crate) generation: Generation,
    /// The tokens that slots hold.
    pub(crate) held: HashSet<u64>,
    /// Those of them whose attempts were certainly listed: they ran, or no settlement of theirs can have taken effect.
    pub(crate) standing: HashSet<u64>,
    /// Those whose settlements waited to be sent once more.
    pub(crate) repeated: HashSet<u64>,
    /// Tokens that calls without an answer offer.
    pub(crate) open: Vec<Range<u64>>,
    /// The first token that no call had offered.
    pub(crate) bound: u64,
    /// Settlements whose answers were lost.
    pub(crate) unanswered: Vec<Settlement>,
    /// Whether the store has had no lease of the node.
    pub(crate) is_in_doubt: bool,
}

/// The store's side.
#[derive(Debug)]
pub(crate) struct StoredList {
    pub(crate) jobs: Vec<FetchedJob>,
    /// Of those that no slot held when the list was requested: the tokens of jobs that were deleted.
    pub(crate) deleted: Vec<u64>,
}

/// The consequences.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Settlements that did not take effect, to be sent again.
    pub(crate) repeat: Vec<Settlement>,
    /// Those that did.
    pub(crate) settled: Vec<Settlement>,
    /// Jobs that no slot holds, to be run.
    pub(crate) adopt: Vec<FetchedJob>,
    /// Attempts that the store lost, to be listed again before they are settled.
    pub(crate) missing: Vec<u64>,
}

/// Compares. A token that no slot held when the list was requested, and that no open call offers, stays without a slot
/// for ever: none is offered twice.
pub(crate) fn compare(request: ListRequest, listed: Vec<FetchedJob>) -> Comparison {
    let tokens: HashSet<u64> = listed.iter().map(|job| job.attempt.token).collect();
    let mut missing: Vec<u64> = request.standing.difference(&tokens).copied().collect();
    // A settlement that took effect and one whose attempt was lost look the same. Whether the store lost its data, those
    // show that certainly stood: then nothing is left of what took effect before, and all are sent again.
    let has_lost = request.is_in_doubt || !missing.is_empty();
    if has_lost {
        let unanswered = request.unanswered.iter().map(|settlement| settlement.attempt.token);
        missing.extend(unanswered.chain(request.repeated).filter(|token| !tokens.contains(token)));
    }
    let is_unsettled = |settlement: &Settlement| has_lost || tokens.contains(&settlement.attempt.token);
    let (repeat, settled) = request.unanswered.into_iter().partition(is_unsettled);
    let is_stray = |job: &FetchedJob| {
        let token = job.attempt.token;
        token < request.bound
            && !request.held.contains(&token)
            && !request.open.iter().any(|offered| offered.contains(&token))
    };
    missing.sort_unstable();
    Comparison { repeat, settled, adopt: listed.into_iter().filter(is_stray).collect(), missing }
}

#[cfg(test)]
mod tests {
    use phalanx_core::backend::{AttemptEnd, AttemptKey, JobCounters};

    use super::*;

    fn key(token: u64) -> AttemptKey {
        AttemptKey { token, queue: "q".into(), counters: JobCounters::default() }
    }

    fn check(held: &[u64], standing: &[u64], open: &[Range<u64>], unanswered: &[u64], listed: &[u64]) -> [Vec<u64>; 4] {
        let settlement = |token: &u64| Settlement {
            attempt: key(*token),
            id: None,
            end: AttemptEnd::Done,
            unique: None,
            report: None,
            consequences: None,
        };
        let request = ListRequest {
            generation: Generation::random(),
            held: held.iter().copied().collect(),
            standing: standing.iter().copied().collect(),
            open: open.to_vec(),
            bound: 100,
            unanswered: unanswered.iter().map(settlement).collect(),
            repeated: HashSet::new(),
            is_in_doubt: false,
        };
        let listed = listed.iter().map(|token| FetchedJob { attempt: key(*token), text: "{}".into() }).collect();
        let found = compare(request, listed);
        let tokens = |settlements: &[Settlement]| settlements.iter().map(|it| it.attempt.token).collect();
        let adopted = found.adopt.iter().map(|job| job.attempt.token).collect();
        [tokens(&found.repeat), tokens(&found.settled), adopted, found.missing]
    }

    #[test]
    fn each_difference_has_its_consequence() {
        let none = Vec::new;
        // All is as it should be.
        assert_eq!(check(&[1, 2], &[1, 2], &[], &[], &[1, 2]), [none(), none(), none(), none()]);
        // Of two settlements without an answer one took effect.
        assert_eq!(check(&[1, 2], &[], &[], &[1, 2], &[2]), [vec![2], vec![1], none(), none()]);
        // The answer of a fetch was lost.
        assert_eq!(check(&[1], &[1], &[], &[], &[1, 7, 8]), [none(), none(), vec![7, 8], none()]);
        // A call is under way: its tokens may still come with its answer. So may those of calls sent later.
        assert_eq!(check(&[1], &[1], &[5..9, 40..42], &[], &[1, 5, 8, 41, 100, 101]), [none(), none(), none(), none()]);
        // The store lost its data.
        assert_eq!(check(&[1, 2, 3], &[1, 3], &[], &[], &[]), [none(), none(), none(), vec![1, 3]]);
        // With it went the attempt of a settlement without an answer.
        assert_eq!(check(&[1, 2], &[1], &[], &[2], &[]), [vec![2], none(), none(), vec![1, 2]]);
    }

    #[test]
    fn in_doubt_all_that_is_not_listed_is_listed_again() {
        let request = |is_in_doubt| ListRequest {
            generation: Generation::random(),
            held: [1, 2, 3].into(),
            standing: HashSet::new(),
            repeated: [2, 3].into(),
            open: Vec::new(),
            bound: 100,
            unanswered: vec![Settlement {
                attempt: key(1),
                id: None,
                end: AttemptEnd::Done,
                unique: None,
                report: None,
                consequences: None,
            }],
            is_in_doubt,
        };
        let listed = || vec![FetchedJob { attempt: key(3), text: "{}".into() }];
        let found = compare(request(true), listed());
        assert_eq!((found.missing, found.repeat.len(), found.settled.len()), (vec![1, 2], 1, 0));
        // Without a sign of loss they were settled.
        let found = compare(request(false), listed());
        assert_eq!((found.missing, found.repeat.len(), found.settled.len()), (vec![], 0, 1));
    }
}
