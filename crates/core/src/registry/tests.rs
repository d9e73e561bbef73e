use std::any::TypeId;
use std::time::Duration;

use schemars::{JsonSchema, schema_for};
use serde::Deserialize;

use super::*;
use crate::action::{BodyRules, OnDisconnect};
use crate::backend::{JobRate, QueueLimits};
use crate::error::ActionError;
use crate::future::Deadline;
use crate::task::{CatchUp, MIN_INTERVAL, Overlap, Schedule, TickRule, UniquePolicy};

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is looked at")]
struct Thing {
    id: u32,
    #[schemars(extend("writeOnly" = true))]
    password: String,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is looked at")]
struct Outer {
    things: Vec<Thing>,
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is looked at")]
#[serde(rename_all = "camelCase")]
struct Reserved {
    message_id: u32,
    error: u32,
}

/// Names behind references and choices.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "only its schema is looked at")]
#[serde(untagged)]
enum Hidden {
    Reserved(Reserved),
    Deeper(Box<Hidden>),
    Own { context: u32 },
    List(Vec<Outer>),
}

fn action(name: &'static str, version: u32, routes: &'static [Route]) -> ActionDef {
    ActionDef {
        name,
        version,
        description: "",
        routes,
        exposure: Exposure::Public,
        cross_site: false,
        deadline: Deadline::Default,
        on_disconnect: OnDisconnect::Finish,
        finish_stream: false,
        limits: Vec::new,
        body: BodyRules::DEFAULT,
        input: || schema_for!(Thing),
        output: || schema_for!(Thing),
        require: |_| {},
        run: |_, _| Box::pin(async { Err(ActionError::internal("never called")) }),
    }
}

const fn get(path: &'static str) -> Route {
    Route { method: Method::Get, path }
}

const fn post(path: &'static str) -> Route {
    Route { method: Method::Post, path }
}

fn registry(actions: Vec<ActionDef>) -> Result<Registry, Vec<String>> {
    Registry::new(Definitions { actions: actions.into(), ..Definitions::default() }).map_err(|faults| faults.0)
}

#[test]
fn without_a_version_the_newest_is_found_and_numbers_are_compared_as_numbers() {
    let registry = registry(vec![action("a", 10, &[]), action("a", 2, &[]), action("b", 1, &[])]).unwrap();
    let found = |name, version| registry.find(name, version).map(|action| action.def.version);
    assert_eq!(found("a", None), Some(10));
    assert_eq!(found("a", Some(2)), Some(2));
    assert_eq!((found("a", Some(3)), found("c", None)), (None, None));
    let all: Vec<_> = registry.actions().map(|action| (action.def.name, action.def.version)).collect();
    assert_eq!(all, [("a", 2), ("a", 10), ("b", 1)]);
}

#[test]
fn every_definition_error_is_reported_before_the_first_call() {
    let check = |actions: Vec<ActionDef>, expected: &[&str]| {
        let faults = registry(actions).err().unwrap_or_default();
        assert_eq!(faults.len(), expected.len(), "{faults:?}");
        for (fault, part) in faults.iter().zip(expected) {
            assert!(fault.contains(part), "{fault:?} names {part:?}");
        }
    };
    check(vec![action("a", 1, &[const { get("/things/{id}") }]), action("b", 1, &[const { get("/things") }])], &[]);
    check(vec![action("a", 1, &[]), action("a", 1, &[])], &["version 1 is defined twice"]);
    check(vec![action("a b", 0, &[])], &["must be 1 to 100 characters", "versions start at 1"]);
    check(vec![action("a", 1, &[const { get("things") }])], &["must start with `/`"]);
    check(vec![action("a", 1, &[const { get("/{name}/{*rest}") }])], &["has {name}", "has {rest}"]);
    let taken = const { &[get("/x/{id}")] };
    check(vec![action("a", 1, taken), action("b", 1, taken)], &["GET /x/{id} is taken by another action"]);
    let internal = ActionDef { exposure: Exposure::Internal, ..action("a", 1, &[const { get("") }]) };
    check(vec![internal], &["is internal and names a route"]);
    let reserved = ActionDef { output: || schema_for!(Reserved), ..action("a", 1, &[]) };
    check(vec![reserved], &["\"messageId\" is reserved", "\"error\" is reserved"]);
    let hidden = ActionDef { output: || schema_for!(Hidden), ..action("a", 1, &[]) };
    check(vec![hidden], &["\"context\" is reserved", "\"messageId\" is reserved", "\"error\" is reserved"]);
    let chosen = ActionDef { input: || schema_for!(Hidden), ..action("a", 1, &[const { get("/{error}/{name}") }]) };
    check(vec![chosen], &["has {name}"]);
    let other = ActionDef { input: || schema_for!(Reserved), ..action("b", 1, &[const { post("/x/{error}") }]) };
    let third = ActionDef { input: || schema_for!(Reserved), ..action("c", 1, &[const { get("/x/{message_id}") }]) };
    let (same, too) = ("/x/{error} and /x/{id} are the same path", "has {message_id}");
    let (alike, doubled) = ("/x/{message_id} and /x/{id} are the same path", "GET /x/{message_id} is taken");
    check(vec![action("a", 1, taken), other, third], &[same, too, alike, doubled]);
    let needy = ActionDef { require: |needs| needs.state::<String>(), ..action("a", 1, &[]) };
    check(vec![needy], &["needs a state of type alloc::string::String"]);
}

#[test]
fn a_schedule_that_cannot_be_is_named_with_its_task() {
    let ticks = |ticks, overlap, catch_up| TaskDef {
        name: "clean",
        schedule: Some(Schedule { ticks, overlap, catch_up }),
        input: || schema_for!(Hidden),
        check: |_| Ok(()),
        ..RUN_ACTION
    };
    let every = |interval| ticks(TickRule::Every(interval), Overlap::Skip, CatchUp::Last);
    let of =
        |task| Registry::new(Definitions { tasks: vec![task], ..Definitions::default() }).map_err(|faults| faults.0);
    let check = |task, expected: &str| {
        let faults = of(task).err().unwrap_or_default();
        assert_eq!(faults.iter().map(String::as_str).collect::<Vec<_>>(), [expected]);
    };
    assert!(of(every(Duration::from_millis(100))).is_ok());
    assert!(of(ticks(TickRule::Every(MIN_INTERVAL), Overlap::Allow, CatchUp::All)).is_ok());
    check(every(Duration::ZERO), "task \"clean\": every = 0ns: 100ms at least");
    check(every(Duration::from_millis(99)), "task \"clean\": every = 99ms: 100ms at least");
    check(every(Duration::from_micros(100_500)), "task \"clean\": every = 100.5ms: whole milliseconds");
    let ages = Duration::from_secs(u64::MAX);
    check(every(ages), &format!("task \"clean\": every = {ages:?}: ten years at most"));
    let all = "task \"clean\": catch_up = \"all\" needs overlap = \"allow\": of several missed ticks one could wait";
    check(ticks(TickRule::Every(MIN_INTERVAL), Overlap::Skip, CatchUp::All), all);
    let needy = TaskDef { check: RUN_ACTION.check, ..every(MIN_INTERVAL) };
    check(needy, "task \"clean\" is periodic, and its ticks have no input: give action a default");
    let unique = UniquePolicy { key: UniqueKey::Input, ..UniquePolicy::DEFAULT };
    let keyed = TaskDef { unique, ..every(MIN_INTERVAL) };
    check(keyed, "task \"clean\" is periodic: its ticks are unique by `overlap`, without a key");
}

#[test]
fn limits_that_cannot_be_and_two_for_one_queue_are_named_with_their_tasks() {
    let rate = |jobs, window| QueueLimits { rate: Some(JobRate { jobs, window }), ..QueueLimits::NONE };
    let limit = |running| QueueLimits { running: Some(running), ..QueueLimits::NONE };
    let task = |name, queue, limits| TaskDef { name, queue, limits, ..RUN_ACTION };
    for (tasks, expected) in [
        (vec![task("a", "mail", limit(5)), task("b", "mail", limit(5)), task("c", "other", limit(1))], None),
        (vec![task("a", "a", limit(0))], Some("task \"a\": limit = 0: no job would ever run")),
        (
            vec![task("a", "a", rate(1, Duration::from_millis(1)))],
            Some("task \"a\": rate = \"1/1ms\": the time of a rate is from 100ms to 366 days"),
        ),
        (
            vec![task("a", "mail", limit(5)), task("b", "mail", rate(9, Duration::from_secs(1)))],
            Some(
                "the tasks \"a\" (limit = 5) and \"b\" (rate = \"9/1s\") have the queue \"mail\", whose limits are one: \
                 give them the same, or queues of their own",
            ),
        ),
        (
            vec![task("a", "default", limit(5))],
            Some(
                "the tasks \"a\" (limit = 5) and \"runAction\" (no limit) have the queue \"default\", whose limits are one: \
                 give them the same, or queues of their own",
            ),
        ),
    ] {
        let registry = Registry::new(Definitions { tasks, ..Definitions::default() });
        assert_eq!(registry.as_ref().err().map(ToString::to_string).as_deref(), expected);
        let queues = registry.map(|registry| registry.limited_queues()).unwrap_or_default();
        let names: Vec<&str> = queues.iter().map(|limited| &*limited.queue).collect();
        assert_eq!(names, if expected.is_none() { vec!["mail", "other"] } else { vec![] });
    }
}

#[test]
fn a_task_is_fair_by_a_field_of_its_input_and_another_one_of_its_queue_by_another() {
    let task = |name, field| TaskDef { name, queue: "mail", fair_by: Some(field), ..RUN_ACTION };
    let of = |tasks| Registry::new(Definitions { tasks, ..Definitions::default() });
    let queues = of(vec![task("a", "action"), task("b", "version")]).unwrap().limited_queues();
    assert!(matches!(&queues[..], [queue] if queue.takes_turns && &*queue.queue == "mail"), "{queues:?}");
    let error = of(vec![task("a", "tenant")]).unwrap_err().to_string();
    assert_eq!(error, "task \"a\" is fair by \"tenant\", and its input has no such field");
}

#[test]
fn a_state_that_is_there_is_not_missed() {
    let mut states = States::default();
    states.insert("here".to_owned());
    let needy = ActionDef { require: |needs| needs.state::<String>(), ..action("a", 1, &[]) };
    let definitions = Definitions { actions: [needy].into(), states, ..Definitions::default() };
    assert_eq!(Registry::new(definitions).unwrap().states.get::<String>().as_deref(), Some(&"here".to_owned()));
    assert_ne!(TypeId::of::<String>(), TypeId::of::<&str>());
}

#[test]
fn what_came_is_shown_without_secrets_at_any_depth_and_without_what_is_undeclared() {
    let mut config = Config::default();
    config.general.secret_params = vec!["id".into()];
    let shown = |def: ActionDef, body: &str| {
        let mut params = Params::default();
        params.set_json_body(body.as_bytes()).unwrap();
        Value::Object(RegisteredAction::new(GroupedAction { def, groups: Vec::new() }, None).shown(&params, &config))
            .to_string()
    };
    let flat = shown(action("a", 1, &[]), r#"{"id":5,"password":"x","pin":1}"#);
    assert_eq!(flat, r#"{"id":"[FILTERED]","password":"[FILTERED]"}"#);
    let outer = ActionDef { input: || schema_for!(Outer), ..action("a", 1, &[]) };
    let nested = shown(outer, r#"{"things":[{"id":5,"password":"x","pin":1}]}"#);
    assert_eq!(nested, r#"{"things":[{"id":"[FILTERED]","password":"[FILTERED]","pin":1}]}"#);
}
