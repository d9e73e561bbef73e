//! Enqueuing on a node without a worker: what is stored, and what is refused.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use validator::Validate;

use super::*;
use crate::answer::{IntoAnswer, answering};
use crate::backend::{Clock, DeleteOutcome, JobState};
use crate::config::Config;
use crate::engine::Engine;
use crate::engine::setup::NodeSetup;
use crate::job::JobText;
use crate::memory::MemoryTasks;
use crate::params::input_schema;
use crate::registry::Definitions;

mod hooks;

#[derive(Serialize, Deserialize, JsonSchema, Validate)]
struct Mail {
    #[validate(length(min = 3))]
    to: String,
    #[serde(default)]
    size: Option<String>,
}

struct SendMail;

impl Task for SendMail {
    type Input = Mail;
    const DEF: TaskDef = TaskDef {
        name: "mail",
        description: "",
        queue: "low",
        retry: RetryPolicy::DEFAULT,
        deadline: Deadline::Default,
        blocking: false,
        exclusive: false,
        tracked: false,
        limits: QueueLimits::NONE,
        fair_by: None,
        schedule: None,
        unique: UniquePolicy::DEFAULT,
        input: input_schema::<Mail>,
        output: <() as IntoAnswer>::schema,
        check: check_input::<Mail>,
        require: |_| {},
        on_failed: None,
        run: |_, _| answering(async { ().into_answer() }),
    };
}

fn mail(to: &str) -> Mail {
    Mail { to: to.to_owned(), size: None }
}

async fn start() -> Engine {
    let mut setup = NodeSetup::new("test", Config::default());
    setup.definitions = Definitions { tasks: vec![SendMail::DEF], ..Definitions::default() };
    Engine::start(setup).await.unwrap()
}

async fn texts(engine: &Engine, queue: &str) -> Vec<Value> {
    let waiting = engine.node().tasks().waiting(queue, 0, 100).await.unwrap();
    waiting.iter().map(|text| serde_json::from_slice(text).unwrap()).collect()
}

#[tokio::test]
async fn a_job_is_stored_in_its_tasks_queue_in_resques_form() {
    let engine = start().await;
    let tasks = engine.node().tasks();
    let tasks = tasks.of_origin(JobOrigin { request: Some("r-1".into()), ..JobOrigin::default() });
    let options = EnqueueOptions::new().meta("tenant", "a");
    let job = tasks.enqueue_with::<SendMail>(mail("Ada"), options).await.unwrap();
    let stored = &texts(&engine, "low").await[0];
    assert_eq!(
        (&stored["class"], &stored["queue"], &stored["args"]),
        (&json!("mail"), &json!("low"), &json!([{ "to": "Ada", "size": null }]))
    );
    assert_eq!((&stored["id"], &stored["meta"]["request"]), (&json!(&*job.id), &json!("r-1")));
    assert_eq!(stored["meta"], json!({ "request": "r-1", "values": { "tenant": "a" } }));
    assert_eq!(tasks.status(&job.id).await.unwrap().state, JobState::Waiting);
    let later = tasks.enqueue_in::<SendMail>(mail("Bob"), Duration::from_secs(60)).await.unwrap();
    assert!(matches!(tasks.status(&later.id).await.unwrap().state, JobState::Delayed(_)));
    assert_eq!(tasks.delete(&later.id).await.unwrap(), DeleteOutcome::Deleted);
    assert_eq!(tasks.delete(&later.id).await.unwrap(), DeleteOutcome::NotFound);
    engine.stop().await;
}

#[tokio::test]
async fn a_job_that_cannot_run_is_refused_and_nothing_is_stored() {
    let engine = start().await;
    let tasks = engine.node().tasks();
    let options = EnqueueOptions::new;
    let long = "x".repeat(MAX_JOB_BYTES);
    let nearly = "x".repeat(MAX_JOB_BYTES - 20);
    let cases = [
        ("post", json!({ "to": "Ada" }), options(), "unknown_task", ""),
        ("mail", json!({ "to": "A" }), options(), "invalid_input", "to"),
        ("mail", json!({}), options(), "invalid_input", "to"),
        ("mail", json!({ "to": 5 }), options(), "invalid_input", "to"),
        ("mail", json!([]), options(), "malformed", ""),
        ("mail", json!({ "to": "Ada", "size": long }), options(), "payload_too_large", ""),
        ("mail", json!({ "to": "Ada", "size": nearly }), options(), "payload_too_large", ""),
        ("mail", json!({ "to": "Ada" }), options().meta("a", "b".repeat(MAX_META_BYTES)), "payload_too_large", ""),
        ("mail", json!({ "to": "Ada" }), options().queue("a b"), "invalid_input", "queue"),
        ("mail", json!({ "to": "Ada" }), options().queue(""), "invalid_input", "queue"),
        ("mail", json!({ "to": "Ada" }), options().queue("x".repeat(101)), "invalid_input", "queue"),
        ("mail", json!({ "to": "Ada" }), options().id(""), "invalid_input", "id"),
        ("mail", json!({ "to": "Ada" }), options().id("x".repeat(129)), "invalid_input", "id"),
        ("mail", json!({ "to": "Ada" }), options().unique("a b"), "invalid_input", "unique"),
        ("mail", json!({ "to": "Ada" }), options().delay_ms(f64::NAN), "invalid_input", "delay"),
        ("mail", json!({ "to": "Ada" }), options().delay_ms(-1.0), "invalid_input", "delay"),
        ("mail", json!({ "to": "Ada" }), options().delay(Duration::MAX), "invalid_input", "delay"),
        ("mail", json!({ "to": "Ada" }), options().at_ms(u64::MAX), "invalid_input", "delay"),
    ];
    for (task, input, options, code, path) in cases {
        let refused = tasks.enqueue_named(task, &input, options.clone()).await.unwrap_err();
        let found = refused.details().first().map_or("", |detail| &detail.path);
        assert_eq!((refused.code(), found), (code, path), "{options:?}");
    }
    let stats = tasks.stats().await.unwrap();
    assert_eq!((stats.queues.len(), stats.delayed), (0, 0));
    engine.stop().await;
}

#[tokio::test]
async fn an_enqueue_with_an_id_is_stored_once() {
    let engine = start().await;
    let tasks = engine.node().tasks();
    let options = || EnqueueOptions::new().id("order-1");
    let first = tasks.enqueue_with::<SendMail>(mail("Ada"), options()).await.unwrap();
    let again = tasks.enqueue_with::<SendMail>(mail("Ada"), options().queue("high")).await.unwrap();
    assert_eq!((first.enqueued, again.enqueued, &*again.id), (true, false, "order-1"));
    let other = tasks.enqueue_with::<SendMail>(mail("Bob"), options()).await.unwrap_err();
    assert_eq!(other.code(), "conflict");
    let unique = || EnqueueOptions::new().unique("Ada");
    let holder = tasks.enqueue_with::<SendMail>(mail("Ada"), unique()).await.unwrap();
    let second = tasks.enqueue_with::<SendMail>(mail("Bob"), unique()).await.unwrap();
    assert_eq!((holder.enqueued, second), (true, Enqueued { id: holder.id, enqueued: false }));
    assert_eq!(texts(&engine, "low").await.len(), 2);
    engine.stop().await;
}

/// The same, unique by the addressee.
struct Newsletter;

impl Task for Newsletter {
    type Input = Mail;
    const DEF: TaskDef = TaskDef {
        name: "newsletter",
        unique: UniquePolicy { key: UniqueKey::Fields(&["to"]), ..UniquePolicy::DEFAULT },
        ..SendMail::DEF
    };
}

#[tokio::test]
async fn a_task_may_be_unique_by_itself_and_an_enqueue_in_another_way() {
    let mut setup = NodeSetup::new("test", Config::default());
    setup.definitions = Definitions { tasks: vec![SendMail::DEF, Newsletter::DEF], ..Definitions::default() };
    let engine = Engine::start(setup).await.unwrap();
    let (tasks, options) = (engine.node().tasks(), EnqueueOptions::new);
    let first = tasks.enqueue::<Newsletter>(mail("Ada")).await.unwrap();
    let named = json!({ "to": "Ada", "size": "x" });
    let again = tasks.enqueue_named("newsletter", &named, options()).await.unwrap();
    assert_eq!((again.enqueued, &again.id), (false, &first.id));
    let many = tasks.enqueue_many::<Newsletter>(["Bob", "Ada", "Bob"].map(mail), &options()).await.unwrap();
    assert_eq!((&many[1], many[0] == many[2], many[0] == first.id), (&first.id, true, false));
    for (options, enqueued) in [
        (options().unique("k"), true),
        (options().unique("k"), false),
        (options().not_unique(), true),
        (options().unique_scope(UniqueScope::Queue), true),
        (options().unique_scope(UniqueScope::Queue).unique_for(Duration::from_secs(3600)), false),
        (options().unique_scope(UniqueScope::Queue).queue("high"), true),
    ] {
        let job = tasks.enqueue_with::<Newsletter>(mail("Ada"), options.clone()).await.unwrap();
        assert_eq!(job.enqueued, enqueued, "{options:?}");
    }
    let queue = options().unique("k").unique_scope(UniqueScope::Queue);
    assert!(tasks.enqueue_with::<SendMail>(mail("Ada"), queue.clone()).await.unwrap().enqueued);
    assert!(!tasks.enqueue_with::<Newsletter>(mail("Ada"), queue).await.unwrap().enqueued, "it is in the same queue");
    let start = options().unique("s").unique_until(UniqueUntil::Start).unique_for(Duration::from_millis(5));
    tasks.enqueue_with::<SendMail>(mail("Ada"), start).await.unwrap();
    let text = texts(&engine, "low").await.pop().unwrap();
    assert_eq!(
        (&text["unique"], &text["unique_until"], &text["unique_for"]),
        (&json!("mail:s"), &json!("start"), &json!(5))
    );
    for lifetime in [Duration::from_secs(60), Duration::ZERO, Duration::MAX] {
        let short = options().unique("k").unique_for(lifetime);
        let refused = tasks.enqueue_with::<SendMail>(mail("Ada"), short).await.unwrap_err();
        assert_eq!(refused.details()[0].path, "unique_for", "{lifetime:?}");
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_key_that_is_free_before_its_job_is_late_ends_the_boot() {
    let short = UniquePolicy { lifetime: Duration::from_secs(60), ..UniquePolicy::DEFAULT };
    for (unique, deadline, refused) in [
        (short, Deadline::Default, true),
        (short, Deadline::After(Duration::from_secs(60)), false),
        (short, Deadline::Never, false),
        (UniquePolicy { until: UniqueUntil::Start, ..short }, Deadline::Default, false),
    ] {
        let mut setup = NodeSetup::new("test", Config::default());
        let task = TaskDef { unique, deadline, ..SendMail::DEF };
        setup.definitions = Definitions { tasks: vec![task], ..Definitions::default() };
        let started = Engine::start(setup).await;
        let error = started.as_ref().err().map(ToString::to_string).unwrap_or_default();
        assert_eq!(error.contains("unique_for"), refused, "{deadline:?}: {error}");
        if let Ok(engine) = started {
            engine.stop().await;
        }
    }
}

#[tokio::test]
async fn many_jobs_are_checked_before_the_first_is_stored() {
    let engine = start().await;
    let (tasks, options) = (engine.node().tasks(), EnqueueOptions::new());
    let wrong = (0..1201).map(|n| mail(if n == 1200 { "A" } else { "Ada" }));
    assert_eq!(tasks.enqueue_many::<SendMail>(wrong, &options).await.unwrap_err().code(), "invalid_input");
    assert!(texts(&engine, "low").await.is_empty());
    let ids = tasks.enqueue_many::<SendMail>((0..1201).map(|_| mail("Ada")), &options).await.unwrap();
    assert_eq!(tasks.stats().await.unwrap().queues, [("low".to_owned(), 1201)]);
    assert_eq!(tasks.status(&ids[1200]).await.unwrap().state, JobState::Waiting);
    let too_many = (0..).map(|_| mail("Ada"));
    assert_eq!(tasks.enqueue_many::<SendMail>(too_many, &options).await.unwrap_err().code(), "payload_too_large");
    let twice = tasks.enqueue_many::<SendMail>([mail("Ada")], &EnqueueOptions::new().id("a")).await.unwrap_err();
    assert_eq!(twice.details()[0].path, "id");
    engine.stop().await;
}

/// The clock of a store that a message reaches late.
struct LateClock;

impl Clock for LateClock {
    fn now_us(&self) -> u64 {
        u64::MAX / 2
    }
}

#[tokio::test]
async fn an_enqueue_that_arrives_after_its_deadline_stores_nothing() {
    let mut setup = NodeSetup::new("test", Config::default());
    setup.backend.tasks = Some(Arc::new(MemoryTasks::new(Arc::new(LateClock), 10)));
    setup.definitions = Definitions { tasks: vec![SendMail::DEF], ..Definitions::default() };
    let engine = Engine::start(setup).await.unwrap();
    let refused = engine.node().tasks().enqueue::<SendMail>(mail("Ada")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), ("unavailable", "the backend refused it: nothing was stored"));
    assert!(texts(&engine, "low").await.is_empty());
    engine.stop().await;
}

#[tokio::test]
async fn a_node_without_tasks_refuses_to_enqueue_and_has_no_built_in_ones() {
    let engine = Engine::start(NodeSetup::new("test", Config::default())).await.unwrap();
    let tasks = engine.node().tasks();
    assert!(!tasks.has("runAction"));
    let refused = tasks.enqueue::<SendMail>(mail("Ada")).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        ("unknown_task", &*format!("the application has no task {:?}", SendMail::DEF.name))
    );
    let refused = tasks.enqueue_named("no name", &json!({}), EnqueueOptions::new()).await.unwrap_err();
    assert_eq!(refused.message(), "the application has no task of that name");
    engine.stop().await;
    assert!(start().await.node().tasks().has("runAction"));
}

#[tokio::test]
async fn definitions_that_cannot_be_end_the_boot_with_all_reasons() {
    let mut setup = NodeSetup::new("test", Config::default());
    let wrong = TaskDef {
        queue: "a b",
        retry: RetryPolicy { attempts: 0, jitter: 2.0, ..RetryPolicy::DEFAULT },
        unique: UniquePolicy { key: UniqueKey::Fields(&["from"]), ..UniquePolicy::DEFAULT },
        ..SendMail::DEF
    };
    let built_in = TaskDef { name: "runAction", ..SendMail::DEF };
    setup.definitions = Definitions { tasks: vec![SendMail::DEF, wrong, built_in], ..Definitions::default() };
    let error = Engine::start(setup).await.unwrap_err().to_string();
    for part in [
        "the queue \"a b\"",
        "one attempt",
        "jitter",
        "unique by \"from\"",
        "\"mail\" is defined twice",
        "\"runAction\" is defined",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_jobs_text_names_its_claim() {
    let text = br#"{"class":"mail","queue":"low","args":[{}],"id":"a","unique":"mail:Ada"}"#;
    assert_eq!(JobText::read(text).unwrap().unique.as_deref(), Some("mail:Ada"));
}

#[test]
fn the_job_of_a_tick_names_its_tick_and_has_an_empty_input() {
    for (overlap, claim) in [(Overlap::Skip, Some("@@mail")), (Overlap::Allow, None)] {
        let job = tick_job(&SendMail::DEF, overlap, 1_800_000_000_000, 5);
        assert_eq!((&*job.id, &*job.queue, job.due_ms), ("mail@1800000000000", "low", None));
        assert_eq!(job.unique.as_ref().map(|claim| &*claim.key), claim);
        let text: Value = serde_json::from_slice(&job.text).unwrap();
        let mut expected = json!({
            "class": "mail", "queue": "low", "args": [{}], "id": "mail@1800000000000", "enqueued_at": 5,
            "tick": 1_800_000_000_000_u64,
        });
        if let Some(claim) = claim {
            expected["unique"] = claim.into();
            expected["unique_for"] = 604_800_000.into();
        }
        assert_eq!(text, expected);
    }
}

#[test]
fn a_schedule_is_compared_as_text_without_its_blanks() {
    let line = |line| TickRule::Cron { line, timezone: "Europe/Berlin" }.to_string();
    assert_eq!(line("30 2 * * *"), "cron 30 2 * * * Europe/Berlin");
    assert_eq!(line(" 30  2 * * * "), line("30 2 * * *"));
    assert_eq!(TickRule::Every(Duration::from_secs(10)).to_string(), "every 10000 ms");
}
