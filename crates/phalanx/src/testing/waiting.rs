//! The runtime of all clients of the test program, and their waits. It outlasts the applications, so that a socket learns how
//! they closed it; and a runtime of a test whose clock is paused has none of their timers, which would end at once beside
//! sockets.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

/// The longest wait for an answer: a call without a deadline of its own ends after 30 s.
pub(super) const ANSWER: Duration = Duration::from_secs(60);

/// The longest wait for a frame.
pub(super) const FRAME: Duration = Duration::from_secs(5);

/// The longest wait for a condition, and for the end of a socket.
pub(super) const CONDITION: Duration = Duration::from_secs(30);

/// The pause between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Runs a future on the runtime of clients.
pub(super) async fn on_clients<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    static CLIENTS: OnceLock<Runtime> = OnceLock::new();
    let runtime = CLIENTS.get_or_init(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("phalanx-test-clients").enable_all();
        builder.build().expect("the system has threads and descriptors for a test")
    });
    match runtime.spawn(future).await {
        Ok(output) => output,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()), // it is never aborted
    }
}

/// Looks at a condition again and again, on the runtime of clients.
///
/// # Errors
///
/// That of the last look, if it was not met within [`CONDITION`].
pub(super) async fn poll<F, Fut>(mut look: F) -> Result<(), String>
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), String>> + Send,
{
    let mut last = String::new();
    let met = async {
        while let Err(reason) = look().await {
            last = reason;
            sleep(PAUSE).await;
        }
    };
    timeout(CONDITION, met).await.map_err(|_| last)
}

/// Waits until a condition is met, for effects that no frame and no answer shows:
/// `testing::until("the mail is sent", async || mails.count() > 0).await`.
///
/// # Panics
///
/// If it is not met within 30 s: with `sentence`.
pub async fn until(sentence: &str, mut condition: impl AsyncFnMut() -> bool) {
    let (over, mut is_over) = tokio::sync::oneshot::channel();
    on_clients(async move {
        tokio::spawn(async move {
            let mut over = over;
            tokio::select! {
                () = over.closed() => {}
                () = sleep(CONDITION) => drop(over.send(())),
            }
        });
    })
    .await;
    while !condition().await {
        assert!(is_over.try_recv().is_err(), "not met within {CONDITION:?}: {sentence}");
        on_clients(sleep(PAUSE)).await;
    }
}
