//! The tickets, in the memory of the node: it stands for a database.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use phalanx::prelude::*;

/// Most tickets that the desk keeps.
const MOST: usize = 10_000;

/// A question of a user.
#[output]
#[derive(Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// Its number.
    pub id: u64,
    /// The user who opened it.
    pub by: String,
    /// The question.
    pub text: String,
    /// Whether an agent has still to close it.
    pub is_open: bool,
    /// The name of its file.
    pub file: Option<String>,
}

/// All tickets.
#[derive(Debug, Default)]
pub struct Tickets(Mutex<BTreeMap<u64, Ticket>>);

impl Tickets {
    pub(crate) fn open(&self, by: &str, text: String) -> Result<Ticket, ActionError> {
        let mut all = self.all();
        ensure!(all.len() < MOST, ActionError::conflict("the desk has no room for another ticket"));
        let id = all.last_key_value().map_or(1, |(last, _)| last + 1);
        let ticket = Ticket { id, by: by.to_owned(), text, is_open: true, file: None };
        all.insert(id, ticket.clone());
        Ok(ticket)
    }

    pub(crate) fn get(&self, id: u64) -> Option<Ticket> {
        self.all().get(&id).cloned()
    }

    pub(crate) fn change(&self, id: u64, change: impl FnOnce(&mut Ticket)) -> Option<Ticket> {
        let mut all = self.all();
        let ticket = all.get_mut(&id)?;
        change(ticket);
        Some(ticket.clone())
    }

    /// The newest tickets, of one user or of all.
    pub(crate) fn newest(&self, of: Option<&str>, most: usize) -> Vec<Ticket> {
        let all = self.all();
        let wanted = all.values().rev().filter(|ticket| of.is_none_or(|user| ticket.by == user));
        wanted.take(most).cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Ticket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
