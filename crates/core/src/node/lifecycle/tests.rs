use std::future::pending;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::*;
use crate::backend::Backend;
use crate::config::{Config, Environment};
use crate::initializer::BoxError;
use crate::registry::Definitions;

/// Notes what it is asked, and never ends the step in which it is stuck.
struct Part {
    name: &'static str,
    stuck: &'static str,
    log: mpsc::Sender<String>,
}

impl Part {
    async fn note(&self, step: &str) -> Result<(), BoxError> {
        self.log.send(format!("{} {step}", self.name)).await?;
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

#[tokio::test(start_paused = true)]
async fn a_node_that_is_asked_to_stop_while_it_starts_stops_what_was_started() {
    for (stuck, stopped) in [("is made ready", &[] as &[&str]), ("starts", &["first stops"])] {
        let (log, mut noted) = mpsc::channel(16);
        let part = |name, stuck| -> Arc<dyn Initializer> { Arc::new(Part { name, stuck, log: log.clone() }) };
        let setup = setup(vec![part("first", ""), part("second", stuck), part("third", "")]);
        drop(log);
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
