//! The head of the answer to a call, to which its parts may add while it runs: cookies, and the state of rate limits.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel};
use std::sync::{Mutex, PoisonError};

use http::header::{CACHE_CONTROL, EXPIRES, HeaderMap, HeaderName, HeaderValue, SET_COOKIE};

use super::slots::CallSlots;
use crate::backend::LimitState;
use crate::cookie::{Cookie, CookieError};
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;
use crate::units::whole_seconds;

/// Most cookies that one answer sets by [`Context::set_cookie`](crate::Context::set_cookie) and
/// [`Reply::cookie`](crate::Reply::cookie) together.
pub const MAX_STAGED: usize = 32;

/// Most bytes of these: clients and proxies bound the head of an answer.
pub const MAX_STAGED_BYTES: usize = 16 * 1024;

/// Whether the head of an outermost call was added to, and whether it was taken for the answer. One atomic, so that a call
/// that adds nothing pays for no more.
#[derive(Debug, Default)]
pub(crate) struct HeadState(AtomicU8);

const STAGED: u8 = 1;
const TAKEN: u8 = 2;

/// Everything that is added to the head of an answer, whatever is answered.
#[derive(Default)]
pub struct StagedHead {
    cookies: Vec<(Cookie, HeaderValue)>,
    /// The place of a cookie that is to be set, with the bytes of its header.
    reserved: Option<(Cookie, usize)>,
    caching: Caching,
    /// The limits that applied, and the states of those that were looked at, as lists.
    limits: [String; 2],
}

/// Without the values of cookies, which may be credentials.
impl fmt::Debug for StagedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cookies: Vec<&Cookie> = self.cookies.iter().map(|(cookie, _)| cookie).collect();
        let Self { caching, limits, .. } = self;
        let mut shown = f.debug_struct("StagedHead");
        shown.field("cookies", &cookies).field("caching", caching).field("limits", limits).finish()
    }
}

/// The headers about limits.
static LIMIT_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("ratelimit-policy"), HeaderName::from_static("ratelimit")];

/// Begins an element of a list.
fn begin_element(list: &mut String) {
    if !list.is_empty() {
        list.push_str(", ");
    }
}

/// The use that caches may make of an answer, whatever the action says of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Caching {
    /// As the action says.
    #[default]
    AsSaid,
    /// No shared cache may keep it.
    Private,
    /// None may keep it.
    Never,
}

#[derive(Default)]
struct HeadSlot(Mutex<StagedHead>);

impl HeadState {
    /// Changes the head.
    ///
    /// # Errors
    ///
    /// `conflict` with the code `response_started` if it was taken.
    pub(crate) fn stage<R>(
        &self,
        slots: &CallSlots,
        change: impl FnOnce(&mut StagedHead) -> R,
    ) -> Result<R, ActionError> {
        // `take` either comes after this on the atomic, and then waits for the lock, or it came before.
        let mut head = slots.get::<HeadSlot>().0.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.fetch_or(STAGED, AcqRel) & TAKEN != 0 {
            let message = "the answer has begun: its head cannot be changed any more";
            return Err(ActionError::new(ErrorKind::Conflict, "response_started", message));
        }
        Ok(change(&mut head))
    }

    /// Takes the head for the answer; `None` if nothing was added. Nothing can be added from here on.
    pub(crate) fn take(&self, slots: &CallSlots) -> Option<StagedHead> {
        if self.0.fetch_or(TAKEN, AcqRel) & STAGED == 0 {
            return None;
        }
        let mut head = slots.get::<HeadSlot>().0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut *head))
    }
}

impl StagedHead {
    /// Sets cookies, each instead of an earlier one of its name, path and domain.
    ///
    /// # Errors
    ///
    /// One cannot be set, or there are too many: none is set then, and those that are there stay.
    pub(crate) fn set_cookies(
        &mut self,
        cookies: impl IntoIterator<Item = Cookie>,
        is_secure: bool,
    ) -> Result<(), CookieError> {
        let mut added: Vec<(Cookie, HeaderValue)> = Vec::new();
        for cookie in cookies {
            let header = cookie.header(is_secure)?;
            added.retain(|(earlier, _)| !cookie.replaces(earlier));
            added.push((cookie, header));
        }
        let is_kept = |earlier: &Cookie| !added.iter().any(|(cookie, _)| cookie.replaces(earlier));
        let place = self.reserved.as_ref().filter(|(cookie, _)| is_kept(cookie));
        let takes_none = |earlier: &Cookie| !place.is_some_and(|(cookie, _)| cookie.replaces(earlier));
        let kept = self.cookies.iter().filter(|(earlier, _)| is_kept(earlier) && takes_none(earlier));
        let (mut count, mut bytes) = place.map_or((0, 0), |(_, length)| (1, *length));
        for (_, header) in kept.chain(&added) {
            (count, bytes) = (count + 1, bytes + header.len());
        }
        if count > MAX_STAGED || bytes > MAX_STAGED_BYTES {
            bound_reached("cookies of an answer");
            return Err(CookieError::TooMany);
        }
        self.cookies.retain(|(earlier, _)| is_kept(earlier));
        self.cookies.append(&mut added);
        Ok(())
    }

    /// Keeps a place for a cookie that is set later, and is not longer than this one, until it is [released](Self::release).
    ///
    /// # Errors
    ///
    /// Those of [`set_cookies`](Self::set_cookies).
    pub(crate) fn reserve(&mut self, cookie: Cookie, is_secure: bool) -> Result<(), CookieError> {
        let length = cookie.header(is_secure)?.len();
        self.reserved = Some((cookie, length));
        self.set_cookies([], is_secure).inspect_err(|_| self.release())
    }

    /// Gives the place up.
    pub(crate) fn release(&mut self) {
        self.reserved = None;
    }

    /// Sets the cookie of the session.
    ///
    /// # Errors
    ///
    /// Those of [`set_cookies`](Self::set_cookies).
    pub(crate) fn set_session_cookie(&mut self, cookie: Cookie, is_secure: bool) -> Result<(), CookieError> {
        self.set_cookies([cookie], is_secure)?;
        self.caching = Caching::Never;
        Ok(())
    }

    /// Has shared caches keep off, whatever the action says.
    pub(crate) fn keep_from_shared_caches(&mut self) {
        self.caching = self.caching.max(Caching::Private);
    }

    /// Adds a limit that applied, by its element in the list of these, and its state, if it was looked at
    /// (draft-ietf-httpapi-ratelimit-headers-10).
    pub(crate) fn add_limit(&mut self, name: &str, policy: &str, state: Option<LimitState>) {
        let [policies, known] = &mut self.limits;
        begin_element(policies);
        policies.push_str(policy);
        let Some(state) = state else { return };
        begin_element(known);
        // By parts: every answer has it, and `format!` costs several times as much.
        let mut number = itoa::Buffer::new();
        known.reserve(name.len() + 32);
        for part in ["\"", name, "\";r="] {
            known.push_str(part);
        }
        known.push_str(number.format(state.left));
        known.push_str(";t=");
        known.push_str(number.format(whole_seconds(state.whole_in)));
    }

    /// Adds it to the headers of the answer.
    pub fn add_to(self, headers: &mut HeaderMap) {
        let caching = match self.caching {
            Caching::AsSaid => None,
            Caching::Private if is_for_no_shared_cache(headers) => None,
            Caching::Private => Some("private, no-cache"),
            Caching::Never => Some("no-store"),
        };
        if let Some(caching) = caching {
            headers.remove(EXPIRES);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
        }
        for (name, list) in LIMIT_HEADERS.iter().zip(self.limits).filter(|(_, list)| !list.is_empty()) {
            if let Ok(value) = HeaderValue::try_from(list) {
                headers.insert(name, value);
            }
        }
        for (_, cookie) in self.cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

/// Whether the answer keeps shared caches off by itself. One that is `no-cache` alone may be stored (RFC 9111, 5.2.2.4).
fn is_for_no_shared_cache(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let (mut is_private, mut is_shared) = (false, false);
    for directive in lines.flat_map(|line| line.split(',')).map(str::trim) {
        let name = directive.split('=').next().unwrap_or_default();
        is_private |= ["private", "no-store"].iter().any(|private| directive.eq_ignore_ascii_case(private));
        is_shared |= ["public", "s-maxage"].iter().any(|shared| name.eq_ignore_ascii_case(shared));
    }
    is_private && !is_shared
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn set(head: &HeadState, slots: &CallSlots, name: &'static str, value: &str) -> Result<(), ActionError> {
        head.stage(slots, |head| head.set_cookies([Cookie::new(name, value)], false))?.map_err(ActionError::from)
    }

    fn taken(head: &HeadState, slots: &CallSlots) -> Vec<String> {
        let mut headers = HeaderMap::new();
        if let Some(staged) = head.take(slots) {
            staged.add_to(&mut headers);
        }
        let pair = |value: &HeaderValue| value.to_str().unwrap().split(';').next().unwrap().to_owned();
        headers.get_all(SET_COOKIE).iter().map(pair).collect()
    }

    #[test]
    fn a_later_cookie_replaces_an_earlier_one_and_none_comes_after_the_answer() {
        let (head, slots) = (HeadState::default(), CallSlots::default());
        for (name, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
            set(&head, &slots, name, value).unwrap();
        }
        assert_eq!(taken(&head, &slots), ["b=2", "a=3"]);
        assert_eq!(set(&head, &slots, "a", "4").unwrap_err().code(), "response_started");
        let untouched = HeadState::default();
        assert!(taken(&untouched, &slots).is_empty());
        assert_eq!(set(&untouched, &slots, "a", "4").unwrap_err().code(), "response_started");
    }

    #[test]
    fn the_cookies_of_an_answer_are_bounded() {
        let (head, slots) = (HeadState::default(), CallSlots::default());
        let stage = |name: String, bytes: usize| {
            head.stage(&slots, |head| head.set_cookies([Cookie::new(name, "x".repeat(bytes))], false)).unwrap()
        };
        for index in 0..MAX_STAGED {
            stage(format!("a{index}"), 1).unwrap();
        }
        assert_eq!(stage("more".into(), 1), Err(CookieError::TooMany));
        assert_eq!(stage("a0".into(), 4000), Ok(()), "it replaces one");
        for index in 1..3 {
            stage(format!("a{index}"), 3900).unwrap();
        }
        assert_eq!(stage("a3".into(), 3900), Err(CookieError::TooMany), "more than 16 KiB");
        assert!(taken(&head, &slots).contains(&"a3=x".to_owned()), "the earlier one stays");
    }

    #[test]
    fn a_place_that_is_reserved_is_taken_by_its_cookie_alone() {
        let mut head = StagedHead::default();
        let cookie = |name: String, bytes: usize| Cookie::new(name, "x".repeat(bytes));
        for index in 1..MAX_STAGED {
            head.set_cookies([cookie(format!("a{index}"), 1)], false).unwrap();
        }
        head.reserve(cookie("id".into(), 43), false).unwrap();
        assert_eq!(head.set_cookies([cookie("more".into(), 1)], false), Err(CookieError::TooMany));
        assert_eq!(head.set_cookies([cookie("a1".into(), 2)], false), Ok(()));
        head.set_cookies([cookie("id".into(), 43)], false).unwrap();
        head.release();
        head.reserve(cookie("id".into(), 43), false).unwrap();
        head.set_cookies([cookie("id".into(), 1)], false).unwrap();
        head.release();
        assert_eq!(head.reserve(cookie("other".into(), 43), false), Err(CookieError::TooMany));
        assert_eq!(head.set_cookies([cookie("a2".into(), 2)], false), Ok(()), "nothing is left of a refused one");
        for index in 1..5 {
            head.set_cookies([cookie(format!("a{index}"), 3500)], false).unwrap();
        }
        assert_eq!(head.reserve(cookie("id".into(), 2500), false), Err(CookieError::TooMany), "more than 16 KiB");
    }

    #[test]
    fn values_of_cookies_are_not_shown() {
        let mut head = StagedHead::default();
        head.set_session_cookie(Cookie::new("id", "secret"), false).unwrap();
        let shown = format!("{head:?} {:?}", Cookie::new("id", "secret"));
        assert!(shown.contains("id") && shown.contains("Never") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn of_several_cookies_all_are_set_or_none() {
        let (head, slots) = (HeadState::default(), CallSlots::default());
        set(&head, &slots, "a", "1").unwrap();
        let stage = |cookies: &[(&'static str, &str)]| {
            let cookies = cookies.iter().map(|(name, value)| Cookie::new(*name, *value));
            head.stage(&slots, |head| head.set_cookies(cookies, false)).unwrap()
        };
        assert_eq!(stage(&[("a", "2"), ("b", "1"), ("c", "a;b")]), Err(CookieError::Value));
        let names: Vec<_> = (0..MAX_STAGED).map(|index| format!("a{index}")).collect();
        let many = names.iter().map(|name| Cookie::new(name.clone(), "1"));
        assert_eq!(head.stage(&slots, |head| head.set_cookies(many, false)).unwrap(), Err(CookieError::TooMany));
        assert_eq!(stage(&[("b", "1"), ("a", "3"), ("b", "2")]), Ok(()));
        assert_eq!(taken(&head, &slots), ["a=3", "b=2"]);
    }

    #[test]
    fn a_cookie_that_was_set_in_time_is_in_the_answer() {
        for _ in 0..2_000 {
            let (head, slots) = (Arc::new(HeadState::default()), Arc::new(CallSlots::default()));
            let setting = std::thread::spawn({
                let (head, slots) = (head.clone(), slots.clone());
                move || set(&head, &slots, "a", "1").is_ok()
            });
            let taken = taken(&head, &slots);
            assert_eq!(setting.join().unwrap(), taken == ["a=1"]);
        }
    }
}
