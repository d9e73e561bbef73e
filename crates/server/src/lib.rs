//! The transports of Phalanx: HTTP and WebSocket over axum.
