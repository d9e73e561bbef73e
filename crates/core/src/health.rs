//! The reasons for which a node does not serve.

use std::sync::{Mutex, PoisonError};

/// The reasons for which a node does not serve; none when it is ready.
#[derive(Debug)]
pub(crate) struct Health(Mutex<Vec<String>>);

impl Health {
    /// A node that starts.
    pub(crate) fn starting() -> Self {
        Self(Mutex::new(vec!["starting".to_owned()]))
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the problems.
    pub(crate) fn set(&self, problems: &[&str]) {
        let problems = problems.iter().map(|problem| (*problem).to_owned()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }
}
