//! Metrics: one recorder per process, rendered by the admin listener.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use phalanx_core::Shutdown;
use tokio::time::{MissedTickBehavior, interval};

use crate::logging;

/// The buckets of histograms in seconds.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// How often histograms are drained; without that they grow without bound.
const UPKEEP: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// A function that renders the metrics as Prometheus text.
pub(crate) type RenderMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Installs the recorder, once per process, and returns the function that renders it.
pub(crate) fn install() -> RenderMetrics {
    let handle = RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS);
        // The application may have installed a recorder already. Then the metrics go there, and ours renders nothing.
        builder.ok()?.install_recorder().ok()
    });
    describe_process();
    Arc::new(move || {
        measure_process();
        handle.as_ref().map(PrometheusHandle::render).unwrap_or_default()
    })
}

/// Drains the histograms until the node stops.
pub(crate) fn spawn_upkeep(shutdown: &Shutdown) {
    let Some(Some(handle)) = RECORDER.get() else { return };
    let own = shutdown.clone();
    shutdown.spawn_own(async move {
        let mut ticks = interval(UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = own.closed() => break,
                _ = ticks.tick() => handle.run_upkeep(),
            }
        }
    });
}

fn describe_process() {
    describe_counter!(
        "phalanx_log_lines_dropped_total",
        "Log lines dropped because they are not read or cannot be written, by sink"
    );
    describe_gauge!("process_resident_memory_bytes", "Memory of the process that is in RAM");
    describe_gauge!("process_open_fds", "File descriptors of the process");
}

fn measure_process() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<f64>().ok());
    if let Some(kib) = kib {
        gauge!("process_resident_memory_bytes").set(kib * 1024.0);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge!("process_open_fds").set(open.count() as f64);
    }
    for (sink, dropped) in logging::dropped_lines() {
        counter!("phalanx_log_lines_dropped_total", "sink" => sink).absolute(dropped);
    }
}
