//! Queues in which jobs take turns by a field of their input.

use phalanx_core::backend::{NewJob, TaskStore};
use phalanx_core::config::Config;
use phalanx_core::job::turn_of;
use phalanx_core::task::{EnqueueOptions, Task, TaskDef};

use crate::faulty_store::FaultyStore;
use crate::harness::{Fair, Harness, Plain, eventually, work};

#[tokio::test]
async fn jobs_take_turns_by_a_field_of_their_input() {
    let harness = Harness::start_tasks(vec![Fair::DEF], |config| config.tasks.concurrency = 1, None).await.unwrap();
    harness.node.tasks().quiet("node").await.unwrap();
    for (name, count) in [("many", 200), ("few", 10)] {
        let inputs: Vec<_> = (0..count).map(|_| work(name, &[])).collect();
        harness.node.tasks().enqueue_many::<Fair>(inputs, &EnqueueOptions::new()).await.unwrap();
    }
    harness.node.tasks().end_quiet("node").await.unwrap();
    eventually("all have run", async || harness.log.entries().len() == 210).await;
    let last = harness.log.entries().iter().rposition(|entry| entry.starts_with("few")).unwrap();
    println!("the ten were done after {} jobs", last + 1);
    assert!(last < 20, "{last}");
    harness.engine.stop().await;
}

/// No node would look for it there before it learns of it.
#[tokio::test]
async fn a_job_takes_turns_in_the_queues_of_tasks_with_turns_only() {
    const ELSEWHERE: TaskDef = TaskDef { name: "elsewhere", queue: "elsewhere", ..Fair::DEF };
    let harness = Harness::start_tasks(vec![Fair::DEF, ELSEWHERE], |config| config.tasks.concurrency = 0, None);
    let harness = harness.await.unwrap();
    let tasks = harness.node.tasks();
    for (queue, key) in [("default", Some("a")), ("elsewhere", Some("a")), ("other", None)] {
        let options = EnqueueOptions::new().queue(queue);
        tasks.enqueue_with::<Fair>(work("a", &[]), options).await.unwrap();
        let text = tasks.waiting(queue, 0, 1).await.unwrap().remove(0);
        assert_eq!(turn_of(&text), key, "{queue}: {text:?}");
    }
    harness.engine.stop().await;
}

/// A node of another version of the application enqueued them.
#[tokio::test]
async fn a_node_names_the_queues_with_turns_of_other_versions() {
    let store = FaultyStore::new();
    for queue in ["default", "another"] {
        let text = format!(r#"{{"class":"plain","queue":"{queue}","args":[],"id":"{queue}","fair":"a"}}"#);
        store.inner.enqueue(&[NewJob::new(queue, queue, text)], u64::MAX).await.unwrap();
        store.inner.set_paused(queue, true).await.unwrap();
    }
    let served = |config: &mut Config| config.tasks.queues = vec!["default".to_owned()];
    let harness = Harness::start_tasks(vec![Plain::DEF], served, Some(store.clone())).await.unwrap();
    eventually("calls name the queue that it serves", async || *store.in_turns.lock().unwrap() == ["default"]).await;
    harness.engine.stop().await;
}
