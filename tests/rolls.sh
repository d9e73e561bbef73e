#!/usr/bin/env bash
# Rolls a release build ten times under load, and moves the logs away of workers that write 5,000 lines a second. ROLLS_LIMIT
# limits the 99th percentile of requests over rolls, as a multiple of that before them.
set -euo pipefail
cd "$(dirname "$0")/.."
export ROUNDS=10 CLIENTS=500 REST_MS=0 SOCKETS=300 LINES=100000 RATE=5000
cargo build --release --locked -p tour
cargo test --release --locked -p phalanx-tests --test it -- \
    cluster_start::rolls cluster_start::latency cluster_start::logs --nocapture --test-threads 1
