//! A response that is there before the body of its request was read to its end.
//!
//! hyper closes the connection when such a body is dropped, and does not say so: a client that reuses the connection
//! loses its next request. So the rest of a small body is read, and after a larger one the response says `close`.
//!
//! The rest of a body with `Expect: 100-continue` is never read: its client may send its next request in place of the
//! body, and the first bytes of that request would be taken for the body, the rest of it for a request.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::header::{CONNECTION, HeaderMap, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt;
use phalanx_core::{Engine, bound_reached};
use tokio::time::timeout;

use super::request::{LentBody, RequestBody};
use crate::http::headers::list_elements;

/// How much of a body is read for the sake of its connection, and for how long. Beyond, a new connection is cheaper.
const DRAIN_BYTES: u64 = 64 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// Decides what becomes of the rest of a body once the response is there, and adds `connection: close` unless its end
/// was read or will be.
pub(in crate::http) fn finish(request: &Arc<RequestBody>, response: &mut HeaderMap, engine: &Engine) {
    let says_close = || list_elements(response, &CONNECTION).any(|element| element.eq_ignore_ascii_case("close"));
    if request.has_ended() || says_close() {
        return request.discard();
    }
    // A handler of the application's may answer while it still reads.
    let Some(mut body) = request.lend() else { return };
    if request.expects_continue() {
        drop(body);
        request.discard();
    } else {
        match drain_in_place(&mut body) {
            Drained::End => return request.discard(),
            Drained::Pending if body.size_hint().upper().is_some_and(|rest| rest <= DRAIN_BYTES) => {
                engine.shutdown().spawn_own(drain(body));
                return;
            }
            Drained::Pending | Drained::Failed => {
                drop(body);
                request.discard();
            }
        }
    }
    response.append(CONNECTION, HeaderValue::from_static("close"));
}

enum Drained {
    End,
    Pending,
    Failed,
}

/// Reads what is there.
fn drain_in_place(body: &mut LentBody) -> Drained {
    let mut read = 0;
    loop {
        if body.is_end_stream() {
            return Drained::End;
        }
        match body.frame().now_or_never() {
            None => return Drained::Pending,
            Some(None) => return Drained::End,
            Some(Some(Err(_))) => return Drained::Failed,
            Some(Some(Ok(frame))) => read += frame.data_ref().map_or(0, |data| data.len() as u64),
        }
        if read > DRAIN_BYTES {
            return Drained::Failed;
        }
    }
}

/// Reads the rest of a small body. If it does not come in time, the connection is closed with it.
async fn drain(mut body: LentBody) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    if timeout(DRAIN_TIME, rest).await.is_err() {
        bound_reached("drain_time");
    }
    body.discard();
}
