use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use futures_util::future::join_all;
use futures_util::{FutureExt, poll};
use tokio::sync::Semaphore;

use super::*;

/// Doubles numbers. Each call waits for a permit, if it is to.
#[derive(Default)]
struct Doubling {
    sizes: Mutex<Vec<usize>>,
    permits: Option<Semaphore>,
    fault: AtomicUsize,
}

const UNAVAILABLE: usize = 1;
const REFUSED: usize = 2;
const PANIC: usize = 3;

impl SharedScript for Arc<Doubling> {
    type Item = u64;
    type Reply = u64;

    async fn run(&self, items: &[u64]) -> Result<SharedReplies<u64>, BackendError> {
        self.sizes.lock().unwrap().push(items.len());
        if let Some(permits) = &self.permits {
            permits.acquire().await.unwrap().forget();
        }
        match self.fault.swap(0, SeqCst) {
            UNAVAILABLE => Err(BackendError::unavailable("away")),
            REFUSED => Err(BackendError::refused("no")),
            PANIC => panic!("a fault of the script"),
            _ => Ok(items.iter().map(|item| if *item == 7 { Err(BackendError::Full) } else { Ok(2 * item) }).collect()),
        }
    }
}

fn calls(script: &Arc<Doubling>) -> SharedCalls<Arc<Doubling>> {
    SharedCalls::new(script.clone(), None)
}

fn with_permits() -> Arc<Doubling> {
    Arc::new(Doubling { permits: Some(Semaphore::new(0)), ..Doubling::default() })
}

impl Doubling {
    fn permit(&self, count: usize) {
        self.permits.as_ref().unwrap().add_permits(count);
    }

    fn sizes(&self) -> Vec<usize> {
        self.sizes.lock().unwrap().clone()
    }
}

/// Lets the carriers run until they wait.
async fn settle() {
    for _ in 0..10 {
        yield_now().await;
    }
}

#[tokio::test]
async fn callers_that_are_ready_at_once_share_calls_and_each_has_its_own_reply() {
    let script = Arc::new(Doubling::default());
    let calls = calls(&script);
    let replies = join_all((0..100).map(|number| calls.call(number))).await;
    for (number, reply) in replies.into_iter().enumerate() {
        match reply {
            Err(error) => assert!(number == 7 && matches!(error, BackendError::Full), "{number}: {error}"),
            Ok(reply) => assert_eq!(reply, 2 * number as u64),
        }
    }
    assert_eq!(script.sizes(), [64, 36]);
    assert_eq!(calls.call(1).await.unwrap(), 2);
    assert_eq!(script.sizes(), [64, 36, 1], "a caller alone does not wait for others");
}

#[tokio::test]
async fn three_calls_are_under_way_at_most_and_the_rest_goes_in_the_next_one() {
    let script = with_permits();
    let calls = calls(&script);
    let mut waiting = Vec::new();
    for number in 0..10 {
        let mut call = Box::pin(calls.call(number + 100));
        assert!(poll!(&mut call).is_pending());
        waiting.push(call);
        settle().await;
    }
    assert_eq!(script.sizes(), [1, 1, 1]);
    script.permit(10);
    let replies = join_all(waiting).await;
    assert!(replies.into_iter().all(|reply| reply.is_ok()));
    assert_eq!(script.sizes(), [1, 1, 1, 7]);
    settle().await;
    assert_eq!(calls.0.queue().under_way, 0);
}

#[tokio::test]
async fn callers_that_waited_for_a_call_without_an_answer_do_not_wait_for_one_more() {
    for (fault, expected) in [(UNAVAILABLE, 11), (REFUSED, 1)] {
        let script = with_permits();
        let calls = calls(&script);
        let mut waiting = Vec::new();
        for number in 0..13 {
            let mut call = Box::pin(calls.call(number + 100));
            assert!(poll!(&mut call).is_pending());
            waiting.push(call);
            settle().await;
        }
        script.fault.store(fault, SeqCst);
        script.permit(1);
        settle().await;
        script.permit(10);
        let replies = join_all(waiting).await;
        let failed = replies.iter().filter(|reply| reply.is_err()).count();
        assert_eq!(failed, expected, "{fault}");
    }
}

#[tokio::test]
async fn a_caller_that_left_is_not_sent() {
    let script = with_permits();
    let calls = calls(&script);
    assert!(calls.call(1).now_or_never().is_none());
    settle().await;
    assert_eq!(script.sizes(), [] as [usize; 0]);
    assert_eq!(calls.0.queue().under_way, 0);
    script.permit(1);
    assert_eq!(calls.call(2).await.unwrap(), 4);
}

#[tokio::test]
async fn a_carrier_that_panics_leaves_no_caller_waiting() {
    let script = Arc::new(Doubling::default());
    let calls = calls(&script);
    script.fault.store(PANIC, SeqCst);
    let replies = join_all((0..100).map(|number| calls.call(number))).await;
    assert!(replies.iter().all(Result::is_err));
    assert_eq!(calls.call(1).await.unwrap(), 2);
}

#[tokio::test]
async fn beyond_the_bound_a_call_is_refused() {
    let calls = calls(&with_permits());
    let push = || {
        let (reply, _) = oneshot::channel();
        calls.0.push(WaitingCall { item: 1, reply })
    };
    assert_eq!((push().unwrap(), push().unwrap()), (true, false));
    for _ in 2..Redis::MAX_SHARED_CALLS {
        push().unwrap();
    }
    assert!(matches!(push(), Err(BackendError::Refused(_))));
}
