//! The laws that every backend must obey. A law is a function over a seam, named as a sentence; `*_laws!` turns each
//! into a test.

pub mod bus;
pub mod cache;
pub mod limits;
pub mod locks;
pub mod membership;
pub mod rooms;
pub mod sessions;
pub mod tasks;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The limit for every wait on a backend.
const SOON: Duration = Duration::from_secs(10);

/// Turns each law into a test. `$make` returns a store, and a guard that must not be dropped before the test ends.
#[doc(hidden)]
#[macro_export]
macro_rules! laws_of {
    ($seam:ident, $backend:ident, $make:expr, [$($law:ident),* $(,)?]) => {
        mod $backend {
            $(
                #[tokio::test]
                async fn $law() {
                    let (store, _guard) = $make;
                    $crate::laws::$seam::$law(store).await;
                }
            )*
        }
    };
}

/// Polls until the condition is true, such as after a ttl has expired.
async fn eventually<F: Future<Output = bool>>(condition: &str, mut is_true: impl FnMut() -> F) {
    let deadline = Instant::now() + SOON;
    while !is_true().await {
        assert!(Instant::now() < deadline, "{condition}: not within {SOON:?}");
        sleep(Duration::from_millis(2)).await;
    }
}
