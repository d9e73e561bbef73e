#!/usr/bin/env bash
# Races of sessions in full numbers, one test at a time; prints the figures.
set -euo pipefail
cd "$(dirname "$0")/.."

# As tests/run.sh does, so that what it has built is not built again.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
cargo build --workspace --bins --locked
# Runs a test so often: run ROUNDS NAME
run() {
    ROUNDS="$1" cargo test -p phalanx-tests --locked --test it -- "sessions::$2" --nocapture --test-threads 1
}

run 500 races::no_socket_outlives_an_end
run 500 races::no_session_comes_back
run 50 processes::a_node_that_is_killed
run 50 processes::a_sign_out_closes_the_sockets
run 100 races::answers_to_a_stale_cookie
run 1 chromium::
run 20 cluster::a_planted_id
