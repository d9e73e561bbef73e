//! The counters that a test raises, apart from those of the tests beside it.

use std::collections::HashMap;
use std::mem::forget;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::runtime::Builder;

/// Counters by name; those that differ by labels only are one.
#[derive(Default)]
pub(crate) struct Counters(Mutex<HashMap<String, Arc<AtomicU64>>>);

impl Counters {
    /// Runs a test on a runtime of two threads of its own, on which metrics are recorded here.
    pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce(&'static Self) -> F) {
        let counters: &'static Self = Box::leak(Box::default()); // threads of the runtime refer to it as long as they run
        let record = move || forget(metrics::set_default_local_recorder(counters));
        let runtime =
            Builder::new_multi_thread().worker_threads(2).enable_all().on_thread_start(record).build().unwrap();
        let _guard = metrics::set_default_local_recorder(counters);
        runtime.block_on(test(counters));
    }

    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).map_or(0, |count| count.load(Relaxed))
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.0.lock().unwrap().entry(key.name().to_owned()).or_default().clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
