#!/usr/bin/env bash
# Runs every test. Units beside the code, rules for crates, whole nodes over real sockets, then the examples in the docs.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --workspace --all-targets --locked
cargo test --workspace --doc --locked
