#!/usr/bin/env bash
# Real clusters with real faults in full numbers: ROUNDS rounds of each fault (20), which take some hours together.
# Says which part runs and how long each took, goes on after a part that fails, and names those at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds="${1:-20}"

for program in redis-server openssl git cc; do
    command -v "$program" >/dev/null || { echo "$program is missing: bash tests/run.sh installs what tests need"; exit 1; }
done

failed=()
number=0
# Runs a command as the next part: part NAME COMMAND...
part() {
    local name="$1" begin=$SECONDS result=passed
    shift
    number=$((number + 1))
    echo "=== part $number of 9, $(date +%T): $name"
    "$@" || { result=FAILED; failed+=("$name"); }
    echo "=== part $number of 9, $(date +%T): $name $result after $((SECONDS - begin)) s"
}

# As tests/run.sh does, so that what it has built is not built again.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
export CARGO_PROFILE_DEV_DEBUG="${CARGO_PROFILE_DEV_DEBUG:-false}"
# The nodes that tests start as processes.
cargo build --workspace --bins --locked
it=(cargo test -p phalanx-tests --locked --test it)
alone=(--nocapture --test-threads 1)

part "nodes and Redis that fail" env ROUNDS="$rounds" "${it[@]}" -- cluster:: --nocapture
part "rolls, stops and restarts" env ROUNDS="$rounds" CLIENTS=500 REST_MS=0 SOCKETS=300 KILLS=5 JOBS=20000 SCALINGS=1000 BUSY=120 \
    LINES=100000 "${it[@]}" -- cluster_start:: drain:: restart:: "${alone[@]}"
part "jobs" env BATCHES=1000 MEMBERS=100 PACE_MS=0 JOBS=100000 RESTARTS=3 PACE_US=7200 WAITING=1000000 DUE=20000 NODES=8 PERCENTILE=99 \
    "${it[@]}" -- cluster::tasks "${alone[@]}"
part "answers that are lost" env ROUNDS=100 "${it[@]}" -- lost_answers --nocapture
part "promises of recovery" env ROUNDS="$rounds" cargo test -p phalanx-cluster --locked --test it -- promises:: recovery:: \
    "${alone[@]}"
part "soak" cargo test -p phalanx-tests --locked --test soak
part "mutations, which the soak finds" env MUTATIONS=all cargo test -p phalanx-tests --locked --test soak
part "50,000 sockets" env SOCKETS=50000 cargo test --release --locked -p phalanx-cluster --test it -- herd:: --nocapture
part "rolls of a release build" bash tests/rolls.sh

if [ ${#failed[@]} -gt 0 ]; then
    printf 'FAILED: %s\n' "${failed[@]}"
    exit 1
fi
echo "all parts passed"
