//! Cores that do not sleep while figures are taken.
//!
//! To wake a core takes as long as a request. On a quiet machine with two, the median of a client was 35 µs alone, and
//! 79 µs beside every abuser that took a tenth of a core, whatever it did: alone, client and node hand over on a core that
//! stays awake. Where other programs kept both cores busy it was 54 µs, alone and beside each abuser. So a ratio to the
//! time alone is that of the node only if no core sleeps.

use std::process::{Child, Command, Stdio};

use phalanx_testkit::print;

/// Runs as long as its parent does.
const SPIN: &str = "while kill -0 $PPID; do i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done; done";

/// Programs that run where nothing else does, one a core: every other thread has its core at once.
pub(super) struct Awake(Vec<Child>);

impl Awake {
    pub(super) fn keep() -> Self {
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let spin = || {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0", "sh", "-c", SPIN]).stdin(Stdio::null()).stderr(Stdio::null()).spawn()
        };
        let spinning = Self((0..count).filter_map(|_| spin().ok()).collect());
        if spinning.0.is_empty() {
            print("there is no chrt, so cores fall asleep between two requests");
        }
        spinning
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
