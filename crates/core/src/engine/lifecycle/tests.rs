use std::future::pending;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::super::setup::NodeSetup;
use super::*;
use crate::config::Config;
use crate::node::Node;
use crate::shutdown::StopRequest;

/// Logs its steps. Never ends the step in which it is stuck, and panics in another.
struct Part {
    name: &'static str,
    stuck: &'static str,
    panics: &'static str,
    log: mpsc::Sender<String>,
}

impl Part {
    async fn log_step(&self, step: &str) -> Result<(), BoxError> {
        self.log.send(format!("{} {step}", self.name)).await?;
        assert_ne!(self.panics, step, "on purpose");
        if self.stuck == step {
            pending::<()>().await;
        }
        Ok(())
    }
}

#[async_trait]
impl Initializer for Part {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn initialize(&self, _: &mut Boot<'_>) -> Result<(), BoxError> {
        self.log_step("initialize").await
    }

    async fn start(&self, _: &Node) -> Result<(), BoxError> {
        self.log_step("start").await
    }

    async fn stop(&self, _: &Node) {
        let _ = self.log_step("stop").await;
    }
}

fn setup(initializers: Vec<Arc<dyn Initializer>>) -> NodeSetup {
    let mut setup = NodeSetup::new("test", Config::default());
    setup.initializers = initializers;
    setup
}

/// Three initializers, of which the second may get stuck or panic, and the log of their steps.
fn parts(stuck: &'static str, panics: &'static str) -> (NodeSetup, mpsc::Receiver<String>) {
    let (log, steps_log) = mpsc::channel(16);
    let part =
        |name, stuck, panics| -> Arc<dyn Initializer> { Arc::new(Part { name, stuck, panics, log: log.clone() }) };
    (setup(vec![part("first", "", ""), part("second", stuck, panics), part("third", "", "")]), steps_log)
}

#[tokio::test(start_paused = true)]
async fn a_stop_during_the_start_stops_the_initializers_that_were_started() {
    for (stuck, stopped) in [("initialize", &[] as &[&str]), ("start", &["first stop"])] {
        let (setup, mut steps_log) = parts(stuck, "");
        let shutdown = setup.shutdown.clone();
        let (started, ()) = tokio::join!(Engine::start(setup), async {
            while steps_log.recv().await.expect("it gets there") != format!("second {stuck}") {}
            shutdown.request(StopRequest::default());
        });
        assert!(matches!(started, Err(StartError::Stopped)), "{started:?}");
        for step in stopped {
            assert_eq!(steps_log.recv().await.as_deref(), Some(*step));
        }
        assert_eq!(steps_log.recv().await, None);
    }
}

async fn all(mut steps_log: mpsc::Receiver<String>) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(step) = steps_log.recv().await {
        all.push(step);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_late_or_panicking_initializer_ends_the_start_and_is_named() {
    let cases = [("initialize", "", 2), ("", "initialize", 2), ("start", "", 6), ("", "start", 6)];
    for (stuck, panics, steps) in cases {
        let (setup, steps_log) = parts(stuck, panics);
        let started = Instant::now();
        let reason = Chain(&Engine::start(setup).await.unwrap_err()).to_string();
        let (took, why) = match panics {
            "" => (Duration::from_secs(60), "did not end within 60s (general.initializer_timeout)"),
            _ => (Duration::ZERO, "panicked: "),
        };
        assert!(reason.starts_with("initializer second: ") && reason.contains(why), "{reason}");
        assert_eq!(started.elapsed().as_secs(), took.as_secs());
        let steps_log = all(steps_log).await;
        assert_eq!(steps_log.len(), steps, "{steps_log:?}");
        assert_eq!(steps_log.contains(&"first stop".to_owned()), steps == 6, "{steps_log:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_stop_does_not_keep_other_initializers_from_stopping() {
    for (stuck, panics) in [("stop", ""), ("", "stop")] {
        let (setup, steps_log) = parts(stuck, panics);
        Engine::start(setup).await.unwrap().stop().await;
        assert_eq!(all(steps_log).await[6..], ["third stop", "second stop", "first stop"]);
    }
}
