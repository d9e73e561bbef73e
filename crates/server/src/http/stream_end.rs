//! The end of streamed responses while the node stops.

use futures_util::{Stream, StreamExt};
use phalanx_core::Engine;
use phalanx_core::answer::BodyStream;
use tokio::time::sleep;

/// Ends a stream between two of its chunks once the node drains, with a proper last chunk: one open stream of events would
/// keep the node from stopping for all of its grace. Streams end at random moments within `websocket.drain`, like sockets,
/// so that not all clients come back at once.
pub(super) fn end_with_node(
    stream: BodyStream,
    engine: &Engine,
) -> impl Stream<Item = <BodyStream as Stream>::Item> + Send + use<> {
    let (shutdown, longest) = (engine.shutdown().clone(), engine.config().websocket.drain);
    stream.take_until(async move {
        shutdown.draining().await;
        sleep(longest.mul_f64(rand::random())).await;
    })
}
