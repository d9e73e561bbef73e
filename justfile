# Lists the recipes.
default:
    @just --list

# Runs the checks of CI.
check:
    bash .ci/run

# Runs the tests whose names contain FILTER.
test FILTER="":
    cargo test --workspace --all-targets -- {{FILTER}}

# Runs an example: hello, chat, tour.
example NAME:
    cargo run -p {{NAME}}

# Checks the licences, bans and sources of dependencies.
deny:
    cargo deny check bans licenses sources

# Tests real clusters with ROUNDS rounds of each fault (twenty take half an hour), then the soak (SEEDS, SEED, SECONDS).
chaos ROUNDS="20":
    cargo build --workspace --bins --locked
    ROUNDS={{ROUNDS}} cargo test -p phalanx-tests --locked --test it cluster:: -- --nocapture
    cargo test -p phalanx-tests --locked --test soak

# Tests a cluster of a real Actionhero node and ours; needs Node and npm, which installs Actionhero in target/interop.
interop:
    npm install --silent --no-save --no-package-lock --prefix target/interop actionhero@29
    cargo build --workspace --bins --locked
    cargo test -p phalanx-tests --locked --test interop -- --nocapture

# Prints the cost of a node as a ratio to bare servers, by row; about four minutes after the release build.
bench *ARGUMENTS:
    cargo build --release --locked -p tour -p phalanx-bench
    target/release/phalanx-bench compare {{ARGUMENTS}}

# Fails if an abuser slows its neighbours down by more than LIMIT times (99th percentile), in a release build.
fairness LIMIT="1.5":
    FAIRNESS_LIMIT={{LIMIT}} cargo test --release --locked -p phalanx-tests --test it fairness:: -- --nocapture
