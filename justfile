# Lists the recipes.
default:
    @just --list

# What CI runs.
check:
    bash .ci/run

# Tests whose names contain FILTER.
test FILTER="":
    cargo test --workspace --all-targets -- {{FILTER}}

# Runs an example: hello, chat, tour.
example NAME:
    cargo run -p {{NAME}}

# Licences, bans and sources of dependencies.
deny:
    cargo deny check bans licenses sources

# Kills, freezes, cuts and starves real clusters, each fault so often; about half an hour for twenty.
chaos ROUNDS="20":
    cargo build --workspace --bins --locked
    ROUNDS={{ROUNDS}} cargo test -p phalanx-tests --locked --test it cluster:: -- --nocapture

# A cluster of a real Actionhero node and ours; needs Node and npm, from which it takes Actionhero into target/interop.
interop:
    npm install --silent --no-save --no-package-lock --prefix target/interop actionhero@29
    cargo build --workspace --bins --locked
    cargo test -p phalanx-tests --locked --test interop -- --nocapture

# Ratios of a node to bare servers, by row; about four minutes after the release build.
bench *ARGUMENTS:
    cargo build --release --locked -p tour -p phalanx-bench
    target/release/phalanx-bench compare {{ARGUMENTS}}
