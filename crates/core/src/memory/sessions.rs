//! The sessions of one node. They end with its process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{
    BackendError, Clock, CreatedSession, FROZEN_COPY, ListedSession, MAX_SESSIONS_OF_USER, NewSession, SessionKey,
    SessionRenewal, SessionRenewalOutcome, SessionStore, SessionUse, SessionWrite, SessionWriteOutcome, StoredSession,
    UserKey,
};
use crate::metrics::{bound_reached, record_expired_sessions};

/// Most expired sessions that one write removes.
const SWEPT_PER_WRITE: usize = 16;

/// The sessions of one node, behind a mutex that is never locked across an await.
pub struct MemorySessions {
    clock: Arc<dyn Clock>,
    max: usize,
    table: Mutex<SessionTable>,
}

#[derive(Default)]
struct SessionTable {
    sessions: HashMap<SessionKey, Record>,
    /// When each expires, in milliseconds.
    expiring: BTreeSet<(u64, SessionKey)>,
    /// The one that was unused for longest comes first.
    by_use: BTreeMap<u64, SessionKey>,
    uses: u64,
    of_users: HashMap<UserKey, BTreeSet<(u64, SessionKey)>>,
}

struct Record {
    stored: StoredSession,
    created_at: u64,
    expires_at: u64,
    last_use: u64,
    /// The session that it was renewed from, whose copy may still be there.
    previous: Option<SessionKey>,
    /// The session that it was renewed to: it is the copy.
    next: Option<SessionKey>,
}

impl MemorySessions {
    /// Makes an empty store of `max` sessions, which expire by this clock.
    pub fn new(clock: Arc<dyn Clock>, max: usize) -> Self {
        Self { clock, max: max.max(1), table: Mutex::default() }
    }

    /// The table, and the time, once some of the expired sessions are out of it.
    fn table(&self) -> (MutexGuard<'_, SessionTable>, u64) {
        let now = self.clock.now_ms();
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.sweep(now, SWEPT_PER_WRITE);
        (table, now)
    }
}

impl fmt::Debug for MemorySessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemorySessions({})", self.table().0.sessions.len())
    }
}

impl SessionTable {
    fn live(&mut self, key: SessionKey, now: u64) -> Option<&mut Record> {
        if self.sessions.get(&key)?.expires_at <= now {
            self.remove(key);
            record_expired_sessions(1);
            return None;
        }
        self.sessions.get_mut(&key)
    }

    fn sweep(&mut self, now: u64, most: usize) {
        for _ in 0..most {
            match self.expiring.first() {
                Some(&(at, key)) if at <= now => {
                    self.remove(key);
                    record_expired_sessions(1);
                }
                _ => return,
            }
        }
    }

    fn remove(&mut self, key: SessionKey) -> Option<Record> {
        let record = self.sessions.remove(&key)?;
        self.expiring.remove(&(record.expires_at, key));
        self.by_use.remove(&record.last_use);
        self.unlist(key, &record);
        Some(record)
    }

    fn unlist(&mut self, key: SessionKey, record: &Record) {
        let Some(user) = record.stored.user else { return };
        let Some(listed) = self.of_users.get_mut(&user) else { return };
        listed.remove(&(record.stored.ends_at, key));
        if listed.is_empty() {
            self.of_users.remove(&user);
        }
    }

    /// Adds a session, and ends those that there is no room for.
    fn insert(&mut self, key: SessionKey, mut record: Record, max: usize) -> Vec<SessionKey> {
        let mut ended = Vec::new();
        while self.sessions.len() >= max {
            let Some((_, &oldest)) = self.by_use.first_key_value() else { break };
            bound_reached("session.max_in_memory");
            self.remove(oldest);
            ended.push(oldest);
        }
        record.last_use = self.next_use();
        self.by_use.insert(record.last_use, key);
        self.expiring.insert((record.expires_at, key));
        let listed = record.stored.user.map(|user| (user, record.stored.ends_at));
        self.sessions.insert(key, record);
        let Some((user, ends_at)) = listed else { return ended };
        let sessions = self.of_users.entry(user).or_default();
        sessions.insert((ends_at, key));
        if sessions.len() > MAX_SESSIONS_OF_USER
            && let Some(&(_, first)) = sessions.iter().find(|(_, other)| *other != key)
        {
            bound_reached("sessions of a user");
            ended.extend(self.end(first));
        }
        ended
    }

    fn next_use(&mut self) -> u64 {
        self.uses += 1;
        self.uses
    }

    fn expire_at(&mut self, key: SessionKey, at: u64) {
        let Some(record) = self.sessions.get_mut(&key) else { return };
        let before = std::mem::replace(&mut record.expires_at, at);
        self.expiring.remove(&(before, key));
        self.expiring.insert((at, key));
    }

    /// The session that this one was renewed to, in the end.
    fn newest(&self, mut key: SessionKey) -> SessionKey {
        while let Some(next) = self.sessions.get(&key).and_then(|record| record.next) {
            key = next;
        }
        key
    }

    /// Removes a session, and those that it was renewed to and from.
    fn end(&mut self, key: SessionKey) -> Vec<SessionKey> {
        let mut ended = Vec::new();
        let mut next = Some(self.newest(key));
        while let Some(key) = next {
            next = self.remove(key).and_then(|record| {
                ended.push(key);
                record.previous
            });
        }
        // A copy is not reached from a session that is gone.
        ended.extend(self.remove(key).map(|_| key));
        ended
    }

    fn end_listed(&mut self, user: UserKey, kept: Option<SessionKey>) -> Vec<SessionKey> {
        let listed: Vec<SessionKey> = self.of_users.get(&user).into_iter().flatten().map(|(_, key)| *key).collect();
        listed.into_iter().filter(|key| Some(*key) != kept).flat_map(|key| self.end(key)).collect()
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl SessionStore for MemorySessions {
    async fn read(&self, key: SessionKey, using: Option<SessionUse>) -> Result<Option<StoredSession>, BackendError> {
        let (mut table, now) = self.table();
        let last_use = table.next_use();
        let Some(record) = table.live(key, now) else { return Ok(None) };
        let before = std::mem::replace(&mut record.last_use, last_use);
        let (mut stored, expires_at) = (record.stored.clone(), record.expires_at);
        stored.expires_in = expires_at - now;
        table.by_use.remove(&before);
        table.by_use.insert(last_use, key);
        if let Some(using) = using.filter(|_| !stored.is_frozen) {
            let at = now.saturating_add(ms(using.idle)).min(stored.ends_at);
            if at > expires_at.saturating_add(ms(using.step)) || at == stored.ends_at && at > expires_at {
                table.expire_at(key, at);
                stored.expires_in = at - now;
            }
        }
        Ok(Some(stored))
    }

    async fn create(&self, new: NewSession) -> Result<CreatedSession, BackendError> {
        let (mut table, now) = self.table();
        let NewSession { key, user, value, is_remembered, idle, absolute } = new;
        let ends_at = now.saturating_add(ms(absolute));
        let stored = StoredSession { value, version: 1, user, ends_at, expires_in: 0, is_remembered, is_frozen: false };
        let expires_at = ends_at.min(now.saturating_add(ms(idle)));
        let record = Record { stored, created_at: now, expires_at, last_use: 0, previous: None, next: None };
        let ended = table.insert(key, record, self.max);
        Ok(CreatedSession { ends_at, ended })
    }

    async fn write(&self, key: SessionKey, write: SessionWrite) -> Result<SessionWriteOutcome, BackendError> {
        let (mut table, now) = self.table();
        let Some(record) = table.live(key, now) else { return Ok(SessionWriteOutcome::Gone) };
        let stored = &mut record.stored;
        if write.expected.is_some_and(|expected| expected != stored.version) {
            return Ok(SessionWriteOutcome::Conflict(stored.clone()));
        }
        stored.version += 1;
        stored.value = write.value;
        Ok(SessionWriteOutcome::Written(stored.version))
    }

    async fn renew(&self, key: SessionKey, renewal: SessionRenewal) -> Result<SessionRenewalOutcome, BackendError> {
        let (mut table, now) = self.table();
        if let Some(record) = table.live(renewal.key, now).filter(|record| record.previous == Some(key)) {
            let renewed = CreatedSession { ends_at: record.stored.ends_at, ended: Vec::new() };
            return Ok(SessionRenewalOutcome::Renewed(renewed, record.stored.is_remembered));
        }
        let Some(record) = table.live(key, now) else { return Ok(SessionRenewalOutcome::Gone) };
        let old = record.stored.clone();
        if old.is_frozen {
            return Ok(SessionRenewalOutcome::Frozen);
        }
        if renewal.expected.is_some_and(|expected| expected != old.version) {
            return Ok(SessionRenewalOutcome::Conflict(old));
        }
        record.stored.is_frozen = true;
        record.next = Some(renewal.key);
        let copy_expires = record.expires_at.min(now + ms(FROZEN_COPY));
        let (created_at, ends_at) = match renewal.absolute {
            Some(absolute) => (now, now.saturating_add(ms(absolute))),
            None => (record.created_at, old.ends_at),
        };
        if let Some(record) = table.sessions.remove(&key) {
            table.unlist(key, &record);
            table.sessions.insert(key, record);
        }
        table.expire_at(key, copy_expires);
        let is_remembered = renewal.is_remembered.unwrap_or(old.is_remembered);
        let (value, user) = renewal.value.unwrap_or((old.value, old.user));
        let stored = StoredSession { value, version: 1, user, ends_at, expires_in: 0, is_remembered, is_frozen: false };
        let expires_at = ends_at.min(now.saturating_add(ms(renewal.idle)));
        let record = Record { stored, created_at, expires_at, last_use: 0, previous: Some(key), next: None };
        let ended = table.insert(renewal.key, record, self.max);
        Ok(SessionRenewalOutcome::Renewed(CreatedSession { ends_at, ended }, is_remembered))
    }

    async fn end(&self, key: SessionKey) -> Result<Vec<SessionKey>, BackendError> {
        let (mut table, now) = self.table();
        table.live(key, now);
        Ok(table.end(key))
    }

    async fn list(&self, user: UserKey) -> Result<Vec<ListedSession>, BackendError> {
        let (mut table, now) = self.table();
        let listed: Vec<SessionKey> = table.of_users.get(&user).into_iter().flatten().map(|(_, key)| *key).collect();
        let live = |key| {
            let record = table.live(key, now)?;
            Some(ListedSession { key, created_at: record.created_at, ends_at: record.stored.ends_at })
        };
        Ok(listed.into_iter().filter_map(live).collect())
    }

    async fn end_all(&self, user: UserKey) -> Result<Vec<SessionKey>, BackendError> {
        let (mut table, _) = self.table();
        Ok(table.end_listed(user, None))
    }

    async fn end_again(&self, keys: &[SessionKey]) -> Result<Vec<SessionKey>, BackendError> {
        let (mut table, _) = self.table();
        let mut ended = Vec::new();
        for key in keys {
            if table.sessions.get(key).is_some_and(|record| record.next.is_none()) {
                ended.extend(table.end(*key));
            }
        }
        Ok(ended)
    }

    async fn end_others(&self, key: SessionKey) -> Result<Option<Vec<SessionKey>>, BackendError> {
        let (mut table, now) = self.table();
        let newest = table.newest(key);
        let Some(record) = table.live(newest, now) else { return Ok(None) };
        let user = record.stored.user;
        Ok(Some(user.map(|user| table.end_listed(user, Some(newest))).unwrap_or_default()))
    }
}
