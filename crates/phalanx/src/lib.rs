//! An application server for HTTP and WebSocket, made to run as a cluster.
