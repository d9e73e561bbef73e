//! How often something may happen: a bucket of tokens, and a table of them by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many a second, so many at once after a pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
}

/// A bucket that fills at its rate and is emptied token by token.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens: f32,
    filled: Instant,
}

impl Bucket {
    pub(crate) fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: rate.burst.max(1) as f32, filled: now }
    }

    /// Takes a token, if there is one. A rate of zero has no end of them.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
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

/// Buckets by address. At its bound the fullest are forgotten first: they belong to those who asked least.
#[derive(Debug)]
pub(crate) struct Buckets {
    rate: Rate,
    by_address: Mutex<HashMap<IpAddr, Bucket>>,
}

impl Buckets {
    const MOST: usize = 16_384;

    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, by_address: Mutex::default() }
    }

    /// Takes a token of that address; an IPv6 client is its /64.
    pub(crate) fn take(&self, address: IpAddr) -> bool {
        if self.rate.per_second == 0 {
            return true;
        }
        let now = Instant::now();
        let mut buckets = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= Self::MOST {
            self.forget_the_idle(&mut buckets, now);
        }
        buckets.entry(client_of(address)).or_insert_with(|| Bucket::full(self.rate, now)).take(self.rate, now)
    }

    fn forget_the_idle(&self, buckets: &mut HashMap<IpAddr, Bucket>, now: Instant) {
        let refill = Duration::from_secs_f32(self.rate.burst as f32 / self.rate.per_second as f32);
        buckets.retain(|_, bucket| now.saturating_duration_since(bucket.filled) < refill);
        if buckets.len() >= Self::MOST {
            buckets.retain(|_, bucket| bucket.tokens < self.rate.burst as f32 / 2.0);
        }
        if buckets.len() >= Self::MOST {
            buckets.clear(); // sixteen thousand busy addresses: a limit by address no longer helps
        }
    }
}

fn client_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => std::net::Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 2, burst: 3 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(RATE, start);
        let at = |bucket: &mut Bucket, ms| bucket.take(RATE, start + Duration::from_millis(ms));
        assert_eq!([0, 0, 0, 0].map(|ms| at(&mut bucket, ms)), [true, true, true, false]);
        assert!(at(&mut bucket, 600));
        assert!(!at(&mut bucket, 700));
        assert_eq!([9000, 9000, 9000, 9000].map(|ms| at(&mut bucket, ms)), [true, true, true, false]);
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let mut bucket = Bucket::full(Rate { per_second: 0, burst: 0 }, Instant::now());
        assert!((0..1000).all(|_| bucket.take(Rate { per_second: 0, burst: 0 }, Instant::now())));
    }

    #[test]
    fn addresses_do_not_share_and_the_table_stays_bounded() {
        let buckets = Buckets::new(Rate { per_second: 1, burst: 1 });
        for n in 0..40_000_u32 {
            assert!(buckets.take(IpAddr::from(n.to_be_bytes())));
        }
        assert!(buckets.by_address.lock().unwrap().len() <= Buckets::MOST);
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let same_network: IpAddr = "2001:db8::2".parse().unwrap();
        assert!(buckets.take(one));
        assert!(!buckets.take(same_network));
    }
}
