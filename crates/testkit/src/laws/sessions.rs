//! Laws of sessions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::backend::{
    FROZEN_COPY, MAX_SESSIONS_OF_USER, NewSession, SessionKey, SessionRenewal, SessionRenewalOutcome, SessionStore,
    SessionUse, SessionWrite, SessionWriteOutcome, StoredSession, UserKey,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::eventually;

/// Turns each law of sessions into a test: `session_laws!(memory: make())`.
#[macro_export]
macro_rules! session_laws {
    ($backend:ident: $make:expr) => {
        $crate::laws_of!(
            sessions,
            $backend,
            $make,
            [
                a_session_is_read_as_it_was_created,
                an_unused_session_expires_and_a_used_one_does_not,
                no_use_lets_a_session_outlast_its_absolute_end,
                a_write_needs_the_version_that_it_was_made_from,
                of_many_writes_from_one_version_one_succeeds,
                nothing_brings_back_a_session_that_ended,
                a_renewed_session_has_a_new_id_and_leaves_a_copy_of_the_value_before,
                the_copy_does_not_outlast_its_time,
                a_write_under_the_old_id_changes_the_copy_alone,
                a_renewal_may_keep_the_value_and_the_end,
                an_end_under_any_id_of_a_renewed_session_ends_it,
                those_that_are_there_are_ended_again,
                of_renewals_under_one_id_one_succeeds,
                a_renewal_that_is_repeated_is_done_once,
                the_sessions_of_a_user_are_listed_and_ended_together,
                a_user_has_a_bounded_number_of_sessions,
                a_session_without_a_user_is_in_no_list,
                an_end_and_a_write_at_once_leave_nothing,
            ]
        );
    };
}

type SharedSessions = Arc<dyn SessionStore>;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(300);

fn key(name: &str) -> SessionKey {
    SessionKey::of(name)
}

fn new(name: &str, user: Option<&str>) -> NewSession {
    let (key, user, value) = (key(name), user.map(UserKey::of), format!("value of {name}").into());
    NewSession { key, user, value, is_remembered: true, idle: LONG, absolute: 2 * LONG }
}

fn renewal(name: &str, user: Option<&str>) -> SessionRenewal {
    let value = Some((format!("value of {name}").into(), user.map(UserKey::of)));
    let (is_remembered, absolute) = (None, None);
    SessionRenewal { key: key(name), value, expected: None, is_remembered, idle: LONG, absolute }
}

fn write(value: &str, expected: Option<u64>) -> SessionWrite {
    SessionWrite { value: value.to_owned().into(), expected }
}

async fn create(store: &SharedSessions, new: NewSession) -> u64 {
    store.create(new).await.expect("the backend answers").ends_at
}

async fn read(store: &SharedSessions, name: &str) -> Option<StoredSession> {
    store.read(key(name), None).await.expect("the backend answers")
}

async fn value(store: &SharedSessions, name: &str) -> Option<String> {
    read(store, name).await.map(|session| String::from_utf8_lossy(&session.value).into_owned())
}

async fn renew(store: &SharedSessions, old: &str, renewal: SessionRenewal) -> SessionRenewalOutcome {
    store.renew(key(old), renewal).await.expect("the backend answers")
}

async fn names(store: &SharedSessions, user: &str) -> Vec<SessionKey> {
    let listed = store.list(UserKey::of(user)).await.expect("the backend answers");
    listed.into_iter().map(|session| session.key).collect()
}

/// All of it, and no other.
pub async fn a_session_is_read_as_it_was_created(store: SharedSessions) {
    let ends_at = create(&store, new("a", Some("ada"))).await;
    create(&store, NewSession { is_remembered: false, value: "\0\u{e9}\"".into(), ..new("b", None) }).await;
    let first = read(&store, "a").await.expect("it is there");
    assert_eq!((&*first.value, first.version, first.ends_at), (&b"value of a"[..], 1, ends_at));
    assert_eq!((first.user, first.is_remembered, first.is_frozen), (Some(UserKey::of("ada")), true, false));
    let second = read(&store, "b").await.expect("it is there");
    assert_eq!((&*second.value, second.user, second.is_remembered), ("\0\u{e9}\"".as_bytes(), None, false));
    assert_eq!(read(&store, "c").await, None);
}

/// A read that only looks is no use.
pub async fn an_unused_session_expires_and_a_used_one_does_not(store: SharedSessions) {
    for name in ["used", "unused"] {
        create(&store, NewSession { idle: 2 * SHORT, ..new(name, Some("ada")) }).await;
    }
    let using = SessionUse { idle: LONG, step: Duration::from_secs(60) };
    assert!(store.read(key("used"), Some(using)).await.expect("the backend answers").is_some());
    eventually("the unused one expires", || async { read(&store, "unused").await.is_none() }).await;
    assert!(read(&store, "used").await.is_some());
    assert_eq!(names(&store, "ada").await, [key("used")]);
    let late = store.write(key("unused"), write("late", None)).await.expect("the backend answers");
    assert_eq!(late, SessionWriteOutcome::Gone);
}

/// However often it is used.
pub async fn no_use_lets_a_session_outlast_its_absolute_end(store: SharedSessions) {
    create(&store, NewSession { idle: SHORT, absolute: 2 * SHORT, ..new("a", Some("ada")) }).await;
    let using = SessionUse { idle: LONG, step: Duration::ZERO };
    eventually("it ends", || async { store.read(key("a"), Some(using)).await.expect("the backend answers").is_none() })
        .await;
    assert_eq!(names(&store, "ada").await, []);
}

/// One that names no version replaces whichever is there.
pub async fn a_write_needs_the_version_that_it_was_made_from(store: SharedSessions) {
    create(&store, new("a", None)).await;
    let written = |outcome| matches!(outcome, SessionWriteOutcome::Written(2 | 3));
    assert!(written(store.write(key("a"), write("second", Some(1))).await.expect("the backend answers")));
    let late = store.write(key("a"), write("late", Some(1))).await.expect("the backend answers");
    let SessionWriteOutcome::Conflict(stored) = late else { panic!("{late:?}") };
    assert_eq!((&*stored.value, stored.version), (&b"second"[..], 2));
    assert!(written(store.write(key("a"), write("third", None)).await.expect("the backend answers")));
    assert_eq!(value(&store, "a").await.as_deref(), Some("third"));
    let renewed = renew(&store, "a", SessionRenewal { expected: Some(2), ..renewal("b", None) }).await;
    assert!(matches!(renewed, SessionRenewalOutcome::Conflict(stored) if stored.version == 3));
}

/// Exactly one.
pub async fn of_many_writes_from_one_version_one_succeeds(store: SharedSessions) {
    create(&store, new("a", None)).await;
    for version in 1..=20 {
        let mut writing = JoinSet::new();
        for writer in 0..8 {
            let store = store.clone();
            writing.spawn(async move {
                let written = store.write(key("a"), write(&writer.to_string(), Some(version))).await;
                matches!(written.expect("the backend answers"), SessionWriteOutcome::Written(_))
            });
        }
        assert_eq!(writing.join_all().await.into_iter().filter(|written| *written).count(), 1);
    }
}

/// Neither a use nor a write nor a renewal.
pub async fn nothing_brings_back_a_session_that_ended(store: SharedSessions) {
    create(&store, new("a", Some("ada"))).await;
    assert_eq!(store.end(key("a")).await.expect("the backend answers"), [key("a")]);
    let using = SessionUse { idle: LONG, step: Duration::ZERO };
    assert_eq!(store.read(key("a"), Some(using)).await.expect("the backend answers"), None);
    for expected in [None, Some(1)] {
        let written = store.write(key("a"), write("back", expected)).await.expect("the backend answers");
        assert_eq!(written, SessionWriteOutcome::Gone);
    }
    assert_eq!(renew(&store, "a", renewal("b", Some("ada"))).await, SessionRenewalOutcome::Gone);
    assert_eq!((read(&store, "a").await, read(&store, "b").await), (None, None));
    assert_eq!(names(&store, "ada").await, []);
    assert_eq!(store.end(key("a")).await.expect("the backend answers"), [], "an end of none is one too");
}

/// That never shows the new value, and is in no list.
pub async fn a_renewed_session_has_a_new_id_and_leaves_a_copy_of_the_value_before(store: SharedSessions) {
    create(&store, new("a", None)).await;
    let renewed = renew(&store, "a", renewal("b", Some("ada"))).await;
    assert!(matches!(renewed, SessionRenewalOutcome::Renewed(_, true)), "{renewed:?}");
    let (copy, session) = (read(&store, "a").await.expect("a copy"), read(&store, "b").await.expect("the session"));
    assert_eq!((&*copy.value, copy.is_frozen, copy.user), (&b"value of a"[..], true, None));
    assert_eq!((&*session.value, session.is_frozen), (&b"value of b"[..], false));
    assert_eq!(session.user, Some(UserKey::of("ada")));
    assert_eq!(names(&store, "ada").await, [key("b")]);
}

/// Also if it is used and written.
pub async fn the_copy_does_not_outlast_its_time(store: SharedSessions) {
    create(&store, new("a", None)).await;
    create(&store, NewSession { idle: SHORT, ..new("short", None) }).await;
    renew(&store, "a", renewal("b", None)).await;
    renew(&store, "short", renewal("c", None)).await;
    let using = SessionUse { idle: LONG, step: Duration::ZERO };
    let use_copy = async |name: &str| {
        store.write(key(name), write("late", None)).await.expect("the backend answers");
        store.read(key(name), Some(using)).await.expect("the backend answers").is_some()
    };
    assert!(use_copy("a").await);
    eventually("a copy ends when its session would have", || async { !use_copy("short").await }).await;
    sleep(FROZEN_COPY).await;
    assert!(!use_copy("a").await, "it is gone after {FROZEN_COPY:?}");
    assert!(value(&store, "b").await.is_some() && value(&store, "c").await.is_some());
}

/// The session has nothing of it.
pub async fn a_write_under_the_old_id_changes_the_copy_alone(store: SharedSessions) {
    create(&store, new("a", None)).await;
    renew(&store, "a", renewal("b", Some("ada"))).await;
    let written = store.write(key("a"), write("planted", None)).await.expect("the backend answers");
    assert!(matches!(written, SessionWriteOutcome::Written(_)), "{written:?}");
    assert_eq!(value(&store, "a").await.as_deref(), Some("planted"));
    assert_eq!(value(&store, "b").await.as_deref(), Some("value of b"));
    assert_eq!(renew(&store, "a", renewal("c", None)).await, SessionRenewalOutcome::Frozen);
    assert_eq!(read(&store, "c").await, None);
}

/// A sign-in gives a new end.
pub async fn a_renewal_may_keep_the_value_and_the_end(store: SharedSessions) {
    let ends_at = create(&store, NewSession { is_remembered: false, ..new("a", Some("ada")) }).await;
    let kept = SessionRenewal { value: None, ..renewal("b", None) };
    let SessionRenewalOutcome::Renewed(renewed, false) = renew(&store, "a", kept).await else { panic!("renewed") };
    let session = read(&store, "b").await.expect("it is there");
    assert_eq!((renewed.ends_at, session.ends_at, &*session.value), (ends_at, ends_at, &b"value of a"[..]));
    assert_eq!((session.user, session.is_remembered), (Some(UserKey::of("ada")), false));
    let sign_in = SessionRenewal { absolute: Some(10 * LONG), is_remembered: Some(true), ..renewal("c", None) };
    let SessionRenewalOutcome::Renewed(renewed, true) = renew(&store, "b", sign_in).await else { panic!("renewed") };
    assert!(renewed.ends_at > ends_at);
    assert_eq!(names(&store, "ada").await, [], "it is nobody's now");
}

/// A sign-out that was on its way under the old id is not lost.
pub async fn an_end_under_any_id_of_a_renewed_session_ends_it(store: SharedSessions) {
    for ended in ["a", "b", "c"] {
        create(&store, new("a", Some("ada"))).await;
        renew(&store, "a", renewal("b", Some("ada"))).await;
        renew(&store, "b", renewal("c", Some("ada"))).await;
        let keys: BTreeSet<_> = store.end(key(ended)).await.expect("the backend answers").into_iter().collect();
        assert_eq!(keys, BTreeSet::from(["a", "b", "c"].map(key)), "by {ended}");
        for name in ["a", "b", "c"] {
            assert_eq!(read(&store, name).await, None, "{name} after the end of {ended}");
        }
        assert_eq!(names(&store, "ada").await, []);
    }
}

/// With the copies that they were renewed from. A copy alone ends nothing: it may be that of a sign-in since.
pub async fn those_that_are_there_are_ended_again(store: SharedSessions) {
    for name in ["a", "b", "c"] {
        create(&store, new(name, Some("ada"))).await;
    }
    renew(&store, "b", renewal("d", Some("ada"))).await;
    let ended = store.end_again(&["none", "a", "b"].map(key)).await.expect("the backend answers");
    assert_eq!(ended, [key("a")]);
    assert!(read(&store, "b").await.is_some() && read(&store, "d").await.is_some());
    let ended = store.end_again(&["a", "d"].map(key)).await.expect("the backend answers");
    assert_eq!(BTreeSet::from_iter(ended), BTreeSet::from(["b", "d"].map(key)));
    assert_eq!(names(&store, "ada").await, [key("c")]);
    assert_eq!(store.end_again(&[]).await.expect("the backend answers"), []);
}

/// The others learn that it was renewed.
pub async fn of_renewals_under_one_id_one_succeeds(store: SharedSessions) {
    for round in 0..10 {
        let old = format!("old {round}");
        create(&store, new(&old, Some("ada"))).await;
        let mut renewing = JoinSet::new();
        for number in 0..8 {
            let (store, old) = (store.clone(), old.clone());
            renewing.spawn(async move { renew(&store, &old, renewal(&format!("{old} {number}"), Some("ada"))).await });
        }
        let outcomes = renewing.join_all().await;
        let renewed = outcomes.iter().filter(|outcome| matches!(outcome, SessionRenewalOutcome::Renewed(..))).count();
        let frozen = outcomes.iter().filter(|outcome| **outcome == SessionRenewalOutcome::Frozen).count();
        assert_eq!((renewed, frozen), (1, 7));
    }
    assert_eq!(names(&store, "ada").await.len(), 10);
}

/// Its answer was lost: the client must get the new id, since the old one ends soon.
pub async fn a_renewal_that_is_repeated_is_done_once(store: SharedSessions) {
    create(&store, new("a", None)).await;
    let sign_in = || SessionRenewal { absolute: Some(10 * LONG), ..renewal("b", Some("ada")) };
    let first = renew(&store, "a", sign_in()).await;
    store.write(key("b"), write("written since", None)).await.expect("the backend answers");
    assert_eq!(renew(&store, "a", sign_in()).await, first);
    assert_eq!(value(&store, "b").await.as_deref(), Some("written since"));
    assert_eq!(names(&store, "ada").await, [key("b")]);
    assert_eq!(renew(&store, "a", renewal("c", Some("ada"))).await, SessionRenewalOutcome::Frozen);
    store.end(key("b")).await.expect("the backend answers");
    assert_eq!(renew(&store, "a", sign_in()).await, SessionRenewalOutcome::Gone);
    assert_eq!((read(&store, "b").await, names(&store, "ada").await), (None, vec![]));
}

/// All, or all but one, and none of another user.
pub async fn the_sessions_of_a_user_are_listed_and_ended_together(store: SharedSessions) {
    for name in ["a", "b", "c"] {
        create(&store, new(name, Some("ada"))).await;
    }
    create(&store, new("d", Some("bob"))).await;
    let listed: BTreeSet<_> = names(&store, "ada").await.into_iter().collect();
    assert_eq!(listed, BTreeSet::from(["a", "b", "c"].map(key)));
    renew(&store, "b", renewal("e", Some("ada"))).await;
    let ended = store.end_others(key("b")).await.expect("the backend answers").expect("it is there");
    assert_eq!(BTreeSet::from_iter(ended), BTreeSet::from(["a", "c"].map(key)));
    assert_eq!(names(&store, "ada").await, [key("e")]);
    assert_eq!(store.end_others(key("a")).await.expect("the backend answers"), None);
    let ended = store.end_all(UserKey::of("ada")).await.expect("the backend answers");
    assert_eq!(BTreeSet::from_iter(ended), BTreeSet::from(["b", "e"].map(key)), "its copy goes with it");
    assert_eq!((names(&store, "ada").await, names(&store, "bob").await), (vec![], vec![key("d")]));
    assert_eq!(store.end_all(UserKey::of("ada")).await.expect("the backend answers"), []);
}

/// One more ends the first.
pub async fn a_user_has_a_bounded_number_of_sessions(store: SharedSessions) {
    for number in 0..MAX_SESSIONS_OF_USER {
        let absolute = LONG + Duration::from_secs(number as u64);
        let created = store.create(NewSession { absolute, ..new(&number.to_string(), Some("ada")) }).await;
        assert_eq!(created.expect("the backend answers").ended, []);
    }
    let created = store.create(NewSession { absolute: 4 * LONG, ..new("more", Some("ada")) }).await;
    assert_eq!(created.expect("the backend answers").ended, [key("0")]);
    assert_eq!((read(&store, "0").await, names(&store, "ada").await.len()), (None, MAX_SESSIONS_OF_USER));
    let short = store.create(NewSession { absolute: LONG / 2, ..new("short", Some("ada")) }).await;
    assert_eq!(short.expect("the backend answers").ended, [key("1")], "never the new one itself");
}

/// So there are no others to end.
pub async fn a_session_without_a_user_is_in_no_list(store: SharedSessions) {
    create(&store, new("a", None)).await;
    create(&store, new("b", None)).await;
    assert_eq!(store.end_others(key("a")).await.expect("the backend answers"), Some(vec![]));
    assert!(read(&store, "b").await.is_some());
    assert_eq!(names(&store, "").await, []);
}

/// Whichever comes first.
pub async fn an_end_and_a_write_at_once_leave_nothing(store: SharedSessions) {
    for round in 0..50 {
        let (name, other) = (format!("s{round}"), format!("r{round}"));
        create(&store, new(&name, Some("ada"))).await;
        let using = SessionUse { idle: LONG, step: Duration::ZERO };
        let step = |number: usize| {
            let (store, key, renewal) = (store.clone(), key(&name), renewal(&other, Some("ada")));
            async move {
                match number {
                    0 => drop(store.end(key).await),
                    1 => drop(store.renew(key, renewal).await),
                    2 => drop(store.read(key, Some(using)).await),
                    _ => drop(store.write(key, write("late", None)).await),
                }
            }
        };
        // Each begins as the first in some rounds, and they run at once.
        let all: JoinSet<()> = (0..5).map(|number| step((number + round) % 5)).collect();
        all.join_all().await;
        assert_eq!((read(&store, &name).await, read(&store, &other).await), (None, None), "round {round}");
    }
    assert_eq!(names(&store, "ada").await, []);
}
