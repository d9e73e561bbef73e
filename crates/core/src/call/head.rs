//! The head of the answer to a call, to which its parts may add while it runs: cookies.

use std::sync::atomic::{AtomicU8, Ordering::AcqRel};
use std::sync::{Mutex, PoisonError};

use http::header::{HeaderMap, HeaderValue, SET_COOKIE};

use super::slots::CallSlots;
use crate::cookie::{Cookie, CookieError};
use crate::error::{ActionError, ErrorKind};
use crate::metrics::bound_reached;

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
#[derive(Debug, Default)]
pub struct StagedHead {
    cookies: Vec<(Cookie, HeaderValue)>,
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
    /// Sets a cookie, instead of an earlier one of its name, path and domain.
    ///
    /// # Errors
    ///
    /// It cannot be set, or there are too many.
    pub(crate) fn set_cookie(&mut self, cookie: Cookie, is_secure: bool) -> Result<(), CookieError> {
        let header = cookie.header(is_secure)?;
        self.cookies.retain(|(earlier, _)| !cookie.replaces(earlier));
        let bytes: usize = self.cookies.iter().map(|(_, header)| header.len()).sum();
        if self.cookies.len() == MAX_STAGED || bytes + header.len() > MAX_STAGED_BYTES {
            bound_reached("cookies of an answer");
            return Err(CookieError::TooMany);
        }
        self.cookies.push((cookie, header));
        Ok(())
    }

    /// Adds it to the headers of the answer.
    pub fn add_to(self, headers: &mut HeaderMap) {
        for (_, cookie) in self.cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn set(head: &HeadState, slots: &CallSlots, name: &'static str, value: &str) -> Result<(), ActionError> {
        head.stage(slots, |head| head.set_cookie(Cookie::new(name, value), false))?.map_err(ActionError::from)
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
            head.stage(&slots, |head| head.set_cookie(Cookie::new(name, "x".repeat(bytes)), false)).unwrap()
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
