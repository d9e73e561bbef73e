//! Hooks around an enqueue, and the event that follows it.

use std::sync::Mutex;

use super::*;
use crate::context::Context;
use crate::error::ErrorKind;
use crate::event::Event;
use crate::hooks::{Hooks, JobDraft};

/// Decides by the addressee of a mail.
async fn gate(ctx: Context, job: JobDraft) -> Result<(), ActionError> {
    let Ok(mail) = job.read::<Mail>() else { return Ok(()) };
    match mail.to.as_str() {
        "Eve" => return Err(ActionError::new(ErrorKind::RateLimited, "too_many_mails", "Eve has enough")),
        "panic" => panic!("as requested"),
        "wait" => std::future::pending().await,
        "nowhere" => job.set_queue("a b"),
        "large" => job.set_meta("all", "x".repeat(MAX_META_BYTES)),
        "again" => drop(ctx.tasks().enqueue::<SendMail>(super::mail("again")).await?),
        "once" => drop(ctx.tasks().enqueue::<SendMail>(super::mail("Ada")).await?),
        "unavailable" => return Err(ActionError::of(ErrorKind::Unavailable, "the quota is away")),
        _ => {}
    }
    if job.meta("tenant").as_deref() == Some("slow") {
        job.set_queue(format!("slow-{}", job.queue()));
    }
    job.set_meta("node", ctx.node().id());
    Ok(())
}

type Seen = Arc<Mutex<Vec<String>>>;

/// A node with both hooks, what the second one saw, and the jobs that observers were notified of.
async fn start_hooked() -> (Engine, Seen, Seen) {
    let (seen, stored) = (Seen::default(), Seen::default());
    let mut config = Config::default();
    config.general.action_deadline = Duration::from_millis(200);
    let mut setup = NodeSetup::new("test", config);
    let (of_observer, of_hook) = (stored.clone(), seen.clone());
    let mut hooks = Hooks::default();
    hooks.before_enqueue(gate);
    // Counts what the hook before it let pass.
    hooks.before_enqueue(move |ctx: Context, job: JobDraft| {
        let seen = format!("{} {} {:?} {:?}", job.task(), job.queue(), job.meta("node"), job.request());
        if let Some(request) = job.request() {
            assert_eq!(ctx.id().to_string(), request);
        }
        of_hook.lock().unwrap().push(seen);
        async { Ok(()) }
    });
    setup.definitions = Definitions {
        tasks: vec![SendMail::DEF],
        hooks,
        observers: vec![Arc::new(move |event: &Event| {
            if let Event::JobEnqueued { task, id, queue, .. } = event {
                of_observer.lock().unwrap().push(format!("{task} {id} {queue}"));
            }
        })],
        ..Definitions::default()
    };
    (Engine::start(setup).await.unwrap(), seen, stored)
}

#[tokio::test]
async fn a_hook_changes_the_queue_and_the_meta_of_jobs_and_the_next_one_sees_it() {
    let (engine, seen, stored) = start_hooked().await;
    let tasks = engine.node().tasks();
    let tasks = tasks.of_origin(JobOrigin { request: Some("r-1".into()), ..JobOrigin::default() });
    let slow = EnqueueOptions::new().meta("tenant", "slow").id("a");
    tasks.enqueue_with::<SendMail>(mail("Ada"), slow.clone()).await.unwrap();
    assert!(!tasks.enqueue_with::<SendMail>(mail("Ada"), slow).await.unwrap().enqueued);
    let named = tasks.enqueue_named("mail", &json!({ "to": "Bob" }), EnqueueOptions::new()).await.unwrap();
    let many = tasks.enqueue_many::<SendMail>(["Ada", "Bob"].map(mail), &EnqueueOptions::new()).await.unwrap();
    let text = &texts(&engine, "slow-low").await[0];
    assert_eq!(text["queue"], "slow-low");
    assert_eq!(text["meta"], json!({ "request": "r-1", "values": { "tenant": "slow", "node": "node" } }));
    assert_eq!(texts(&engine, "low").await[2]["meta"]["values"], json!({ "node": "node" }));
    let [slow, low] = ["slow-low", "low"].map(|queue| format!("mail {queue} Some(\"node\") Some(\"r-1\")"));
    assert_eq!(*seen.lock().unwrap(), [slow.clone(), slow, low.clone(), low.clone(), low]);
    let expected = ["mail a slow-low".to_owned(), format!("mail {} low", named.id)]
        .into_iter()
        .chain(many.iter().map(|id| format!("mail {id} low")));
    assert_eq!(*stored.lock().unwrap(), expected.collect::<Vec<_>>(), "one that was not stored is no event");
    engine.stop().await;
}

#[tokio::test]
async fn a_job_that_a_hook_refuses_is_not_stored() {
    let (engine, seen, stored) = start_hooked().await;
    let tasks = engine.node().tasks();
    for (to, code, message) in [
        ("Eve", "too_many_mails", "Eve has enough"),
        ("unavailable", "unavailable", "the before_enqueue hook failed: the quota is away"),
        ("panic", "internal", "the before_enqueue hook failed"),
        ("wait", "timeout", "the before_enqueue hooks did not end in time: nothing was stored"),
        ("nowhere", "invalid_input", ""),
        ("large", "payload_too_large", ""),
    ] {
        let refused = tasks.enqueue::<SendMail>(mail(to)).await.unwrap_err();
        assert_eq!(refused.code(), code, "{to}: {refused}");
        assert!(refused.message().starts_with(message), "{to}: {refused}");
        let many = ["Ada", to, "Bob"].map(mail);
        let refused = tasks.enqueue_many::<SendMail>(many, &EnqueueOptions::new()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{to}: {refused}");
    }
    let invalid = tasks.enqueue::<SendMail>(mail("A")).await.unwrap_err();
    assert_eq!(invalid.code(), "invalid_input");
    assert!(tasks.stats().await.unwrap().queues.is_empty());
    assert!(stored.lock().unwrap().is_empty());
    // Ada six times, and twice each of the two whose queue or meta cannot be; not the input that is invalid.
    assert_eq!(seen.lock().unwrap().len(), 10);
    engine.stop().await;
}

#[tokio::test]
async fn a_hook_that_always_enqueues_is_refused_at_a_depth() {
    let (engine, seen, stored) = start_hooked().await;
    let tasks = engine.node().tasks();
    let refused = tasks.enqueue::<SendMail>(mail("again")).await.unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Conflict, "hook_recursion"), "{refused}");
    assert!(seen.lock().unwrap().is_empty() && stored.lock().unwrap().is_empty());
    tasks.enqueue::<SendMail>(mail("once")).await.unwrap();
    assert_eq!(stored.lock().unwrap().len(), 2);
    engine.stop().await;
}
