//! The steps of the store that the loop awaits.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::run::StoreReply;

/// Steps whose reply has not come yet. There are at most three calls among them, and one of each other kind, so all are polled
/// whenever the loop wakes: a set that knows which of them was woken, such as `FuturesUnordered`, has the loop polled once
/// more for each step that is added, which takes longer.
#[derive(Default)]
pub(crate) struct AwaitedReplies(Vec<BoxFuture<'static, StoreReply>>);

impl AwaitedReplies {
    pub(crate) fn push(&mut self, step: BoxFuture<'static, StoreReply>) {
        self.0.push(step);
    }

    /// Completes with a reply that has come, the oldest first. Cancel safe.
    pub(crate) async fn next(&mut self) -> StoreReply {
        poll_fn(|cx| {
            let replied = self.0.iter_mut().enumerate().find_map(|(at, step)| match step.poll_unpin(cx) {
                Poll::Ready(reply) => Some((at, reply)),
                Poll::Pending => None,
            });
            let Some((at, reply)) = replied else { return Poll::Pending };
            drop(self.0.remove(at));
            Poll::Ready(reply)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, pending, ready};
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// Whether a reply has come, and how often the loop is woken by the look.
    fn look(replies: &mut AwaitedReplies) -> (bool, usize) {
        let wakes = Arc::new(Wakes::default());
        let polled = pin!(replies.next()).poll(&mut Context::from_waker(&wakes.clone().into()));
        (polled.is_ready(), wakes.0.load(SeqCst))
    }

    #[test]
    fn a_step_that_is_added_wakes_the_loop_once_its_reply_comes() {
        let mut replies = AwaitedReplies::default();
        assert_eq!(look(&mut replies), (false, 0));
        replies.push(Box::pin(pending()));
        assert_eq!(look(&mut replies), (false, 0));
        replies.push(Box::pin(ready(StoreReply::Shown(Ok(None)))));
        replies.push(Box::pin(ready(StoreReply::ListedAgain(Ok(())))));
        assert_eq!([(); 3].map(|()| look(&mut replies)), [(true, 0), (true, 0), (false, 0)]);
    }
}
