//! Warnings about sessions when a node starts.

use phalanx_core::Engine;
use tracing::warn;

/// Warns of settings under which sessions do less than an operator may expect.
pub(super) fn warn_of_settings(engine: &Engine, is_embedded: bool) {
    if !engine.has_sessions() {
        return;
    }
    let (environment, config) = (engine.node().environment(), engine.config());
    if is_embedded {
        warn!("sessions are in the memory of this process, and end with it: set REDIS_URL to keep them");
    }
    if environment.is_production() && !config.web.tls_in_front {
        warn!(
            "the cookie of sessions is Secure, and this node speaks plain http: browsers send it over https alone. Set \
             web.tls_in_front if a proxy terminates TLS"
        );
    }
}
