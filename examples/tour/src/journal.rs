//! A journal of attempts in a file: the record of tests that kill nodes and take Redis away.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use phalanx::event::Event;
use phalanx::prelude::*;

/// Appends a line for each attempt that begins here, and one for each that ends, to the file that `TOUR_JOURNAL` names.
/// Nodes may share it.
#[derive(Clone)]
pub(crate) struct Journal(Arc<File>);

impl Journal {
    /// Opens the file, if there is to be one.
    pub(crate) fn from_environment() -> Option<Self> {
        let path = std::env::var_os("TOUR_JOURNAL")?;
        match File::options().create(true).append(true).open(&path) {
            Ok(file) => Some(Self(Arc::new(file))),
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "there is no journal of attempts");
                None
            }
        }
    }

    /// One write appends a short line whole, also where others append to the same file.
    fn append(&self, line: &str) {
        if let Err(error) = (&*self.0).write_all(line.as_bytes()) {
            tracing::error!(%error, "the journal of attempts lacks a line");
        }
    }

    /// Whether an end is known to have been accepted: `superseded` is none.
    pub(crate) fn observe(&self, event: &Event) {
        if let Event::AttemptEnded { id, outcome, .. } = event {
            self.append(&format!("end {id} {}\n", outcome.as_str()));
        }
    }
}

#[async_trait]
impl Layer for Journal {
    async fn call(&self, call: Call, next: Next<'_>) -> Outcome {
        if let Ok(attempt) = TaskContext::of(&call.context) {
            let (node, now) = (attempt.node().generation(), SystemTime::now().duration_since(UNIX_EPOCH));
            let us = now.map_or(0, |now| now.as_micros());
            self.append(&format!("begin {} {} {} {node} {us}\n", attempt.id(), attempt.attempt(), attempt.deaths()));
        }
        next.run(call).await
    }
}
