//! The journal that nodes of the tour write of their attempts: it survives them, and needs no Redis.

use std::collections::{BTreeMap, BTreeSet};

use tempfile::TempDir;

/// The file.
pub(crate) struct Journal(TempDir);

/// A run of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) attempt: u32,
    pub(crate) deaths: u32,
    /// The generation of its node.
    pub(crate) node: String,
    /// When it began: Unix time in µs.
    pub(crate) began_us: u64,
}

/// The lines about one job, in the order of the nodes that wrote them.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobLines {
    pub(crate) runs: Vec<Run>,
    /// How attempts ended of which a node learnt that their end was accepted, or refused.
    pub(crate) ends: Vec<String>,
}

impl JobLines {
    pub(crate) fn ended(&self, outcome: &str) -> usize {
        self.ends.iter().filter(|end| *end == outcome).count()
    }
}

/// Everything that was written so far, by job.
pub(crate) type Jobs = BTreeMap<String, JobLines>;

impl Journal {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> String {
        self.0.path().join("journal").to_str().unwrap().to_owned()
    }

    pub(crate) fn read(&self) -> Jobs {
        let text = std::fs::read_to_string(self.path()).unwrap_or_default();
        let mut jobs = Jobs::new();
        // A line that is being written has no end yet.
        let lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        for line in lines {
            let parts: Vec<&str> = line.split(' ').collect();
            match parts[..] {
                ["begin", id, attempt, deaths, node, us] => {
                    let (attempt, deaths) = (attempt.parse().unwrap(), deaths.parse().unwrap());
                    let run = Run { attempt, deaths, node: node.to_owned(), began_us: us.parse().unwrap() };
                    jobs.entry(id.to_owned()).or_default().runs.push(run);
                }
                ["end", id, outcome] => jobs.entry(id.to_owned()).or_default().ends.push(outcome.to_owned()),
                _ => panic!("a line of the journal: {line:?}"),
            }
        }
        jobs
    }

    /// The jobs that began at least so often.
    pub(crate) fn begun(&self, times: usize) -> BTreeSet<String> {
        self.read().into_iter().filter(|(_, lines)| lines.runs.len() >= times).map(|(id, _)| id).collect()
    }
}
