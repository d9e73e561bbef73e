//! Rates of clients: a token bucket, and a table of token buckets by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::LimitSettings;

/// A rate per second, and how much of it may come at once after a pause. A rate of zero is unlimited.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: u32,
    /// Tokens of a full bucket.
    pub burst: u32,
}

/// A bucket that fills at a rate and is emptied token by token.
#[derive(Debug)]
pub struct TokenBucket {
    tokens: f32,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst.max(1) as f32, filled: now }
    }

    /// Takes tokens for a cost that arose already. The bucket may owe them: then nothing else is taken until it has filled.
    pub fn charge(&mut self, tokens: u32) {
        self.tokens -= tokens as f32;
    }

    /// Takes a token, if there is one. At a rate of zero there always is.
    pub fn try_take(&mut self, rate: Rate, now: Instant) -> bool {
        if rate.per_second == 0 {
            return true;
        }
        let fresh = now.saturating_duration_since(self.filled).as_secs_f32() * rate.per_second as f32;
        self.tokens = (self.tokens + fresh).min(rate.burst.max(1) as f32);
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// Token buckets by address. A full table drops the fullest buckets first: their clients made the fewest requests.
#[derive(Debug)]
pub struct AddressBuckets {
    rate: Rate,
    settings: LimitSettings,
    by_address: Mutex<HashMap<IpAddr, TokenBucket>>,
}

impl AddressBuckets {
    const MAX_ADDRESSES: usize = 16_384;

    /// A table without an address.
    pub fn new(rate: Rate, settings: LimitSettings) -> Self {
        Self { rate, settings, by_address: Mutex::default() }
    }

    /// Takes a token of an address, or of its network: see [`LimitSettings::subject_of`].
    pub fn try_take(&self, address: IpAddr) -> bool {
        self.rate.per_second == 0 || self.with_bucket(address, |bucket, now| bucket.try_take(self.rate, now))
    }

    /// Takes tokens of an address for a cost that arose already.
    pub fn charge(&self, address: IpAddr, tokens: u32) {
        self.with_bucket(address, |bucket, _| bucket.charge(tokens));
    }

    fn with_bucket<T>(&self, address: IpAddr, work: impl FnOnce(&mut TokenBucket, Instant) -> T) -> T {
        let now = Instant::now();
        let mut buckets = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= Self::MAX_ADDRESSES {
            self.drop_idle(&mut buckets, now);
        }
        work(buckets.entry(self.settings.subject_of(address)).or_insert_with(|| TokenBucket::full(self.rate, now)), now)
    }

    fn drop_idle(&self, buckets: &mut HashMap<IpAddr, TokenBucket>, now: Instant) {
        let refill = Duration::from_secs_f32(self.rate.burst as f32 / self.rate.per_second.max(1) as f32);
        buckets.retain(|_, bucket| now.saturating_duration_since(bucket.filled) < refill);
        if buckets.len() >= Self::MAX_ADDRESSES {
            buckets.retain(|_, bucket| bucket.tokens < self.rate.burst as f32 / 2.0);
        }
        if buckets.len() >= Self::MAX_ADDRESSES {
            buckets.clear(); // over 16,000 busy addresses: a limit by address no longer helps
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 2, burst: 3 };

    #[test]
    fn a_bucket_allows_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(RATE, start);
        let at = |bucket: &mut TokenBucket, ms| bucket.try_take(RATE, start + Duration::from_millis(ms));
        assert_eq!([0, 0, 0, 0].map(|ms| at(&mut bucket, ms)), [true, true, true, false]);
        assert!(at(&mut bucket, 600));
        assert!(!at(&mut bucket, 700));
        assert_eq!([9000, 9000, 9000, 9000].map(|ms| at(&mut bucket, ms)), [true, true, true, false]);
    }

    #[test]
    fn a_bucket_that_was_charged_more_than_it_had_fills_before_it_gives() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(RATE, start);
        bucket.charge(7);
        let at = |bucket: &mut TokenBucket, ms| bucket.try_take(RATE, start + Duration::from_millis(ms));
        assert_eq!([0, 2400, 2600, 2700].map(|ms| at(&mut bucket, ms)), [false, false, true, false]);
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let mut bucket = TokenBucket::full(Rate { per_second: 0, burst: 0 }, Instant::now());
        assert!((0..1000).all(|_| bucket.try_take(Rate { per_second: 0, burst: 0 }, Instant::now())));
    }

    #[test]
    fn addresses_have_buckets_of_their_own_and_the_table_is_bounded() {
        let buckets = AddressBuckets::new(Rate { per_second: 1, burst: 1 }, LimitSettings::default());
        for n in 0..40_000_u32 {
            assert!(buckets.try_take(IpAddr::from(n.to_be_bytes())));
        }
        assert!(buckets.by_address.lock().unwrap().len() <= AddressBuckets::MAX_ADDRESSES);
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let same_network: IpAddr = "2001:db8::2".parse().unwrap();
        assert!(buckets.try_take(one));
        assert!(!buckets.try_take(same_network));
        let charged: IpAddr = "2001:db8:1::1".parse().unwrap();
        buckets.charge(charged, 1);
        assert!(!buckets.try_take(charged));
    }
}
