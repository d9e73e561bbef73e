#!/usr/bin/env bash
# Runs every test: units beside the code, rules for crates, the browser client, whole nodes over real sockets, the page
# in a real browser, a short run of the bench, and the examples in the docs. Installs what is missing first.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

missing=()
command -v curl >/dev/null || missing+=(curl)
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
command -v openssl >/dev/null || missing+=(openssl)
command -v redis-server >/dev/null || missing+=(redis-server)
command -v node >/dev/null || missing+=(nodejs npm)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}"
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# The tests of the browser client mock timers, which node 20 brought; Debian 12 has 18.
node=node
if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
    npm install --silent --no-save --prefix target/node node@22
    node=target/node/node_modules/.bin/node
fi

# The cases of the Autobahn test suite for WebSocket, which a test of the server crate runs.
kosoku=target/conformance/bin/kosoku
if [ ! -x "$kosoku" ]; then
    python3 -m venv target/conformance
    target/conformance/bin/pip install --quiet --disable-pip-version-check kosoku==0.1.0
fi

# Processes that tests start keep their pid files, logs and data in folders of their own. Where the build has filled the
# queue of a slow disk, each start and end waits for it in the kernel for seconds, which says nothing about the process.
if [ -z "${TMPDIR:-}" ] && [ "$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)" -gt 4000000 ] 2>/dev/null; then
    export TMPDIR=/dev/shm
fi

# Nothing is built twice here, and the files of incremental builds take a third of the disk.
export CARGO_INCREMENTAL="${CARGO_INCREMENTAL:-0}"
# Line tables take a fifth of the time that rustc needs for a crate. A panic names its line without them.
export CARGO_PROFILE_DEV_DEBUG="${CARGO_PROFILE_DEV_DEBUG:-false}"
# All in one build, so that the nodes that tests start as processes are built with the same dependencies as the tests.
# Not `--all-targets`, which adds tests that no source has: those of the crate of macros need all others built once more.
cargo build --workspace --bins --tests --locked
# More threads than cores: most tests wait for leases to expire, for a Redis that is down, or for a browser.
RUST_TEST_THREADS="${RUST_TEST_THREADS:-6}" cargo test --workspace --tests --locked
# The facade tests the examples of the attributes.
cargo test --workspace --exclude phalanx-macros --doc --locked
"$node" --test tests/client/*.test.mjs
target/debug/phalanx-bench smoke
