//! The core of each thread while figures are taken.
//!
//! A request to a node on the client's own core takes 30 µs, one to a node on another core 45 µs. Left to the kernel, which
//! of the two nodes is the near one changes from row to row, and with it each ratio, by a third either way. So each node
//! has a core of its own, and the client is on each of them for half of the time: both are near, and both are far.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of the two nodes, if this process may run on two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cores([usize; 2]);

impl Cores {
    /// Reads which there are.
    pub(super) fn find() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok()?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        Some(Self([cores.next()?, cores.next()?]))
    }

    /// Moves the calling thread to the core of one of the nodes.
    pub(super) fn move_to(self, node: usize) {
        self.run_on(&self.0[node..=node]);
    }

    /// Lets the calling thread run on both.
    pub(super) fn release(self) {
        self.run_on(&self.0);
    }

    fn run_on(self, cores: &[usize]) {
        let mut set = CpuSet::new();
        for core in cores {
            set.set(*core);
        }
        sched_setaffinity(None, &set).expect("a thread may choose among the cores of its process");
    }
}
