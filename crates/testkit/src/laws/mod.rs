//! What every backend must do. A law is a function over a seam, named as a sentence; `*_laws!` makes each a test.

pub mod bus;
pub mod cache;
pub mod locks;
pub mod membership;
pub mod rooms;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long a backend may take for what happens by itself.
const SOON: Duration = Duration::from_secs(10);

/// Makes a test of each law. `$make` answers a store and what must live as long as it.
#[doc(hidden)]
#[macro_export]
macro_rules! laws_of {
    ($seam:ident, $backend:ident, $make:expr, [$($law:ident),* $(,)?]) => {
        mod $backend {
            $(
                #[tokio::test]
                async fn $law() {
                    let (store, _alive) = $make;
                    $crate::laws::$seam::$law(store).await;
                }
            )*
        }
    };
}

/// Waits for a lifetime to end: asks again and again until it is so.
async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}: not within {SOON:?}");
        sleep(Duration::from_millis(2)).await;
    }
}
