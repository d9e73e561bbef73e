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
