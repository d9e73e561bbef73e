use std::sync::atomic::AtomicU32;

use tokio::time::{Instant, Sleep};

use phalanx_core::Successor;

use super::*;

/// Ten a second, and twice as many.
const MOST_POLLS: u32 = 200;

/// A request of ten seconds, then nothing.
struct LongRequest<'a> {
    activity: &'a Activity,
    end: Pin<Box<Sleep>>,
    is_open: bool,
    closes: bool,
    polls: AtomicU32,
}

impl DrainedConnection for LongRequest<'_> {
    fn poll_serve(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        assert!(self.polls.fetch_add(1, Relaxed) < MOST_POLLS, "it is polled all the time");
        if self.is_open && self.end.as_mut().poll(cx).is_ready() {
            self.is_open = false;
            self.activity.end_request();
        }
        if self.closes { Poll::Ready(()) } else { Poll::Pending }
    }

    fn close_when_idle(mut self: Pin<&mut Self>) {
        self.closes = true;
    }
}

/// Drains a connection with a request of ten seconds, and cuts it after twenty; returns the time that it took.
async fn drained(quiet: Duration) -> Duration {
    let (drain, activity, begin) = (Drain::default(), Activity::default(), Instant::now());
    activity.begin_request();
    let end = Box::pin(sleep(Duration::from_secs(10)));
    let polls = AtomicU32::new(0);
    let connection = LongRequest { activity: &activity, end, is_open: true, closes: false, polls };
    drain.begin(Successor::None);
    let serving = async {
        drain.serve(connection, &activity, quiet).await;
        begin.elapsed()
    };
    let cutting = async {
        sleep(Duration::from_secs(20)).await;
        drain.cut();
    };
    tokio::join!(serving, cutting).0
}

#[tokio::test(start_paused = true)]
async fn a_request_that_runs_is_not_polled_all_the_time() {
    assert_eq!(drained(Duration::ZERO).await.as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_time_without_an_end_lasts_until_the_cut() {
    assert_eq!(drained(Duration::MAX).await.as_secs(), 20);
}
