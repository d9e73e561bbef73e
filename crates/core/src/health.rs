//! The reasons for which a node does not serve.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The reasons for which a node does not serve; none when it is ready.
#[derive(Debug)]
pub(crate) struct Health(Mutex<Problems>);

#[derive(Debug)]
struct Problems {
    /// Those of a node that starts or stops.
    phase: Vec<String>,
    /// Those of its parts.
    parts: BTreeSet<&'static str>,
}

impl Health {
    /// A node that starts.
    pub(crate) fn starting() -> Self {
        Self(Mutex::new(Problems { phase: vec!["starting".to_owned()], parts: BTreeSet::new() }))
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        let problems = self.lock();
        problems.phase.iter().cloned().chain(problems.parts.iter().map(|part| (*part).to_owned())).collect()
    }

    /// Replaces the problems of a node that starts or stops.
    pub(crate) fn set(&self, problems: &[&str]) {
        self.lock().phase = problems.iter().map(|problem| (*problem).to_owned()).collect();
    }

    /// Adds or removes a problem of a part.
    pub(crate) fn set_part(&self, problem: &'static str, is_there: bool) {
        let parts = &mut self.lock().parts;
        if is_there {
            parts.insert(problem)
        } else {
            parts.remove(problem)
        };
    }

    fn lock(&self) -> MutexGuard<'_, Problems> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
