use std::future::pending;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::*;
use crate::backend::Backend;
use crate::config::{Config, Environment};
use crate::initializer::BoxError;
use crate::registry::Definitions;

/// Notes what it is asked. Never ends the step in which it is stuck, and panics in another.
struct Part {
    name: &'static str,
    stuck: &'static str,
    panics: &'static str,
    log: mpsc::Sender<String>,
}

impl Part {
    async fn note(&self, step: &str) -> Result<(), BoxError> {
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
        self.note("is made ready").await
    }

    async fn start(&self, _: &Node) -> Result<(), BoxError> {
        self.note("starts").await
    }

    async fn stop(&self, _: &Node) {
        let _ = self.note("stops").await;
    }
}

fn setup(initializers: Vec<Arc<dyn Initializer>>) -> Setup {
    let config = Config::default();
    Setup {
        app: "test".to_owned(),
        version: "0.0.0".to_owned(),
        node_id: "n".to_owned(),
        backend: Backend::memory(&config),
        config,
        environment: Environment("test".to_owned()),
        definitions: Definitions::default(),
        initializers,
        transports: Vec::new(),
        shutdown: Shutdown::default(),
    }
}

/// Three parts, of which the second may get stuck or panic, and what they were asked.
fn parts(stuck: &'static str, panics: &'static str) -> (Setup, mpsc::Receiver<String>) {
    let (log, noted) = mpsc::channel(16);
    let part =
        |name, stuck, panics| -> Arc<dyn Initializer> { Arc::new(Part { name, stuck, panics, log: log.clone() }) };
    (setup(vec![part("first", "", ""), part("second", stuck, panics), part("third", "", "")]), noted)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_asked_to_stop_while_it_starts_stops_what_was_started() {
    for (stuck, stopped) in [("is made ready", &[] as &[&str]), ("starts", &["first stops"])] {
        let (setup, mut noted) = parts(stuck, "");
        let shutdown = setup.shutdown.clone();
        let (started, ()) = tokio::join!(Node::start(setup), async {
            while noted.recv().await.expect("it gets there") != format!("second {stuck}") {}
            shutdown.ask();
        });
        assert!(matches!(started, Err(StartError::Stopped)), "{started:?}");
        for step in stopped {
            assert_eq!(noted.recv().await.as_deref(), Some(*step));
        }
        assert_eq!(noted.recv().await, None);
    }
}

async fn all(mut noted: mpsc::Receiver<String>) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(step) = noted.recv().await {
        all.push(step);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn an_initializer_that_is_late_or_panics_ends_the_start_which_names_it() {
    let cases = [("is made ready", "", 2), ("", "is made ready", 2), ("starts", "", 6), ("", "starts", 6)];
    for (stuck, panics, steps) in cases {
        let (setup, noted) = parts(stuck, panics);
        let begun = Instant::now();
        let reason = Chain(&Node::start(setup).await.unwrap_err()).to_string();
        let (took, why) = match panics {
            "" => (Duration::from_secs(60), "did not end within 60s (general.initializer_timeout)"),
            _ => (Duration::ZERO, "panicked: "),
        };
        assert!(reason.starts_with("initializer second: ") && reason.contains(why), "{reason}");
        assert_eq!(begun.elapsed().as_secs(), took.as_secs());
        let noted = all(noted).await;
        assert_eq!(noted.len(), steps, "{noted:?}");
        assert_eq!(noted.contains(&"first stops".to_owned()), steps == 6, "{noted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_initializer_that_fails_to_stop_keeps_no_other_from_stopping() {
    for (stuck, panics) in [("stops", ""), ("", "stops")] {
        let (setup, noted) = parts(stuck, panics);
        Node::start(setup).await.unwrap().stop().await;
        assert_eq!(all(noted).await[6..], ["third stops", "second stops", "first stops"]);
    }
}
