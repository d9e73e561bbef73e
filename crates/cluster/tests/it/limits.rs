use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use phalanx_cluster::{Keys, RedisClient, RedisLimits};
use phalanx_core::backend::{BackendError, LimitStore, LimitedCall, SystemClock};
use phalanx_core::config::LimitRate;
use phalanx_core::memory::MemoryLimits;
use phalanx_testkit::{Redis, print};
use tokio::time::Instant;

use crate::herd::resident;

async fn store() -> (Arc<dyn LimitStore>, Redis) {
    let (redis, client, keys) = super::redis().await;
    (Arc::new(RedisLimits::new(client, keys)), redis)
}

phalanx_testkit::limit_laws!(redis: super::store().await);

const RATE: LimitRate = LimitRate { calls: 3, window: Duration::from_secs(60) };

fn call(limit: &str, subject: &str) -> LimitedCall {
    LimitedCall { limit: limit.into(), subject: subject.into(), rate: RATE }
}

#[tokio::test]
async fn a_subject_has_one_key_which_expires_with_its_last_slice() {
    let (store, redis) = store().await;
    for _ in 0..5 {
        store.count(&[call("l", "a:192.0.2.1")]).await.unwrap();
    }
    assert_eq!(redis.command("DBSIZE").await, ":1\r\n");
    let left = redis.command("PTTL phalanx:laws:limit:{a:192.0.2.1}:l:60000").await;
    let left: u64 = left.trim_matches([':', '\r', '\n']).parse().unwrap();
    assert!((60_000..=66_000).contains(&left), "{left}");
}

#[tokio::test]
async fn one_script_counts_a_call_for_all_its_limits_and_a_refused_one_writes_nothing() {
    let (store, redis) = store().await;
    store.count(&[call("l", "a")]).await.unwrap(); // loads the script
    let (scripts, writes) = (redis.ran("evalsha").await, redis.ran("set").await);
    store.count(&[call("l", "a"), call("m", "b")]).await.unwrap();
    assert_eq!((redis.ran("evalsha").await - scripts, redis.ran("set").await - writes), (1, 2));
    store.count(&[call("l", "a")]).await.unwrap();
    let writes = redis.ran("set").await;
    assert!(!store.count(&[call("l", "a"), call("m", "b")]).await.unwrap().is_counted);
    assert_eq!(redis.ran("set").await, writes);
}

/// A call in each of eleven slices, of which the newest is so many behind the current one, or ahead of it by another clock.
#[tokio::test]
async fn the_ten_slices_before_the_current_one_are_counted() {
    let (store, redis) = store().await;
    let rate = LimitRate { calls: 30, window: Duration::from_secs(10 * 24 * 3600) }; // a slice is a day
    for (newest, before) in
        [(0, 11), (-1, 10), (-3, 8), (-10, 1), (-11, 0), (-4000, 0), (4, 11), (10, 11), (11, 10), (20, 1), (21, 0)]
    {
        let script = format!(
            "EVAL \"local now, ones = redis.call('TIME')[1], {{}} for n = 1, 11 do ones[n] = 1 end \
             local counts = struct.pack('>dI4I4I4I4I4I4I4I4I4I4I4', math.floor(now / 86400) + {newest}, unpack(ones)) \
             return redis.call('SET', KEYS[1], counts)\" 1 phalanx:laws:limit:{{a}}:l:864000000"
        );
        assert_eq!(redis.command(&script).await, "+OK\r\n");
        for made in 1..=2 {
            let call = LimitedCall { rate, ..call("l", "a") };
            let state = store.count(&[call]).await.unwrap().states.remove(0);
            assert_eq!(state.left, 30 - before - made, "{newest}");
            assert!(state.whole_in > Duration::from_secs(10 * 24 * 3600), "{newest}: {state:?}");
        }
    }
}

#[tokio::test]
async fn a_spoilt_key_is_an_error_or_counts_nothing() {
    let (store, redis) = store().await;
    redis.command("RPUSH phalanx:laws:limit:{a}:l:60000 item").await;
    let refused = store.count(&[call("l", "a")]).await;
    assert!(matches!(refused, Err(BackendError::WrongKind { .. })), "{refused:?}");
    redis.command("SET phalanx:laws:limit:{b}:l:60000 rubbish").await;
    assert_eq!(store.count(&[call("l", "b")]).await.unwrap().states[0].left, 2);
}

#[tokio::test]
async fn callers_at_once_share_a_round_trip_and_a_spoilt_key_is_an_error_for_its_subject_alone() {
    let (store, redis) = store().await;
    redis.command("RPUSH phalanx:laws:limit:{2}:l:60000 item").await;
    store.count(&[call("m", "x")]).await.unwrap(); // loads the script
    let scripts = redis.ran("evalsha").await;
    let calls: Vec<_> = (0..20).map(|caller| [call("l", &(caller % 4).to_string()), call("m", "all")]).collect();
    let decisions = join_all(calls.iter().map(|calls| store.count(calls))).await;
    assert_eq!(redis.ran("evalsha").await - scripts, 1);
    for (caller, decision) in decisions.into_iter().enumerate() {
        match decision {
            Err(BackendError::WrongKind { key }) => assert!(caller % 4 == 2 && key.contains("{2}"), "{caller}: {key}"),
            // `m` has room for three, which the first four callers take, one of them without success.
            Ok(decision) => assert_eq!((decision.is_counted, caller % 4 == 2), (caller < 4, false), "{caller}"),
            Err(error) => panic!("{caller}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_put_back_holds_a_subject_up_for_two_windows_at_most() {
    let redis = Redis::start_with_clock().await;
    let client = RedisClient::open(&redis.url(), Duration::from_secs(10)).unwrap();
    let store = RedisLimits::new(client, Keys::new("actionhero:", "laws"));
    let is_counted = async || store.count(&[call("l", "a")]).await.unwrap().is_counted;
    redis.set_clock(3600);
    assert_eq!(
        [is_counted().await, is_counted().await, is_counted().await, is_counted().await],
        [true, true, true, false]
    );
    redis.set_clock(3600 - 30);
    assert!(!is_counted().await, "it may be that these calls were made a moment ago");
    redis.set_clock(0);
    assert!(is_counted().await, "they were not");
}

#[tokio::test]
async fn several_limits_of_one_subject_share_a_slot_in_cluster_mode() {
    let redis = Redis::start_in_cluster_mode().await;
    let client = RedisClient::open(&redis.url(), Duration::from_secs(10)).unwrap();
    let store = RedisLimits::new(client, Keys::new("actionhero:", "laws"));
    assert!(store.count(&[call("l", "a"), call("m", "a")]).await.unwrap().is_counted);
}

#[tokio::test]
async fn limits_of_several_subjects_share_the_slot_of_a_cluster_whose_name_is_in_braces() {
    let redis = Redis::start_in_cluster_mode().await;
    // The user of `Redis::url` has rights to other keys only.
    let client = RedisClient::open(&format!("redis://{}", redis.addr()), Duration::from_secs(10)).unwrap();
    let store = RedisLimits::new(client, Keys::new("actionhero:", "{laws}"));
    for counted in [true, true, true, false] {
        assert_eq!(store.count(&[call("l", "a:192.0.2.1"), call("m", "h:key")]).await.unwrap().is_counted, counted);
    }
}

/// `LIMIT_KEYS` is their number; `just counts` sets a million.
#[tokio::test]
async fn each_subject_of_many_is_counted_in_a_small_key() {
    let count: usize = std::env::var("LIMIT_KEYS").ok().and_then(|count| count.parse().ok()).unwrap_or(2000);
    let (store, redis) = store().await;
    let used = async || -> f64 {
        let memory = redis.command("INFO memory").await;
        memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
    };
    let subject = |number: usize| format!("a:198.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    // Longer than all of them take.
    let rate = LimitRate { calls: 3, window: Duration::from_secs(3600) };
    let call = |number: usize| LimitedCall { rate, ..call("sign_in", &subject(number)) };
    store.count(&[call(count)]).await.unwrap(); // loads the script
    let (before, start) = (used().await, Instant::now());
    let all = stream::iter(0..count).map(|number| {
        let (store, call) = (&store, call(number));
        async move { store.count(&[call]).await.unwrap().is_counted }
    });
    assert!(all.buffer_unordered(64).all(async |is_counted| is_counted).await);
    let (took, bytes) = (start.elapsed(), (used().await - before) / count as f64);
    assert_eq!(redis.command("DBSIZE").await, format!(":{}\r\n", count + 1));
    print(format_args!("{count} callers counted in Redis: {took:.1?}, {bytes:.0} bytes each"));
    assert!(bytes < 400.0, "{bytes} bytes for a caller");

    let (before, start) = (resident(), Instant::now());
    let memory = MemoryLimits::new(Arc::new(SystemClock::new()), count);
    for number in 0..count {
        assert!(memory.count(&[call(number)]).await.unwrap().is_counted);
    }
    let mib = resident() - before;
    print(format_args!("{count} callers counted by a node: {:.1?}, {mib:.0} MiB", start.elapsed()));
    assert_eq!(memory.subjects(), count);
}
