//! Shows that the checker finds what each mechanism prevents: in a build without the mechanism, made for this alone, it
//! finds faults, and with the same faults injected it finds none of these kinds in the code as it is.
//!
//! A mutation is a patch in `mutations/`. The code has no switches for them: a copy of the tree is patched and built in
//! `target/soak`. A test in `it` checks that the patches apply.

use std::time::Duration;

use phalanx_testkit::print;

use crate::checker::{Kind, Report};
use crate::schedule::schedule;
use crate::{NODES, Soak, builds, folder};

/// Recovery from these few faults takes less than from all kinds.
const CALM: Duration = Duration::from_secs(20);

struct Mutation {
    /// The name of the patch.
    name: &'static str,
    seed: u64,
    seconds: u64,
    /// The kinds of faults that are injected.
    faults: &'static [&'static str],
    /// The checker finds one of these.
    found: &'static [Kind],
}

const MUTATIONS: [Mutation; 4] = [
    // A room message without an answer is published again over the next connection.
    Mutation { name: "repeats", seed: 1, seconds: 40, faults: &["answers"], found: &[Kind::Order, Kind::Hole] },
    // Receivers take messages of a connection that was replaced.
    Mutation { name: "links", seed: 1, seconds: 40, faults: &["late_says"], found: &[Kind::Partial, Kind::Order] },
    // Nothing compares the list of members with those that a node holds.
    Mutation { name: "pass", seed: 1, seconds: 30, faults: &["older"], found: &[Kind::Ghost, Kind::Missing] },
    // A join that was undone is accepted when it arrives later.
    Mutation { name: "floors", seed: 1, seconds: 60, faults: &["late_joins"], found: &[Kind::Ghost] },
];

/// Runs the mutations of these names, or all; returns whether each was found, and not without it.
pub(crate) async fn run(names: &str) -> bool {
    let is_named = |mutation: &&Mutation| names == "all" || names.split(',').any(|name| name == mutation.name);
    let mut results = Vec::new();
    for mutation in MUTATIONS.iter().filter(is_named) {
        let mutated = mutation.soak("mutated", &builds::build_mutation(mutation.name)).await;
        let original = mutation.soak("original", "tour").await;
        results.push((mutation, mutated, original));
    }
    assert!(!results.is_empty(), "no mutation is named {names}");
    let mut are_right = true;
    for (mutation, mutated, original) in &results {
        let is_right = mutation.is_found(mutated) && !mutation.is_found(original);
        are_right &= is_right;
        print(format_args!("{}: {}", mutation.name, if is_right { "right" } else { "WRONG" }));
        print(format_args!("  mutated: {} | {}", mutated.counts, mutated.summary_of_all()));
        print(format_args!("  as it is: {} | {}", original.counts, original.summary_of_all()));
    }
    are_right
}

impl Mutation {
    async fn soak(&self, build: &str, program: &str) -> Report {
        print(format_args!("{}, {build}:", self.name));
        let folder = folder().join(format!("{}-{build}", self.name));
        let within = Duration::from_secs(self.seconds);
        let steps = schedule(self.seed, NODES, within, self.faults);
        Soak { seed: self.seed, steps, within, calm: CALM, program, old_program: None, folder }.run().await
    }

    fn is_found(&self, report: &Report) -> bool {
        self.found.iter().any(|kind| report.faults_of(*kind).next().is_some())
    }
}
