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

# Ratios of a node to bare servers, by row; about four minutes after the release build.
bench *ARGUMENTS:
    cargo build --release --locked -p tour -p phalanx-bench
    target/release/phalanx-bench compare {{ARGUMENTS}}
