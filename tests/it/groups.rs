//! Groups of actions: what holds for each of them, over every way to call one.

use std::sync::{Arc, Mutex};

use phalanx::ActionSet;
use phalanx::prelude::*;
use phalanx::testing::{self, TestClient};
use serde_json::json;

/// The parts of calls, as they ran.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn add(&self, part: impl Into<String>) {
        self.0.lock().unwrap().push(part.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A layer that leaves a trace.
struct Around(&'static str);

#[async_trait]
impl Layer for Around {
    async fn call(&self, call: Call, next: Next<'_>) -> Outcome {
        let trace = call.context.state::<Trace>()?;
        trace.add(self.0);
        let outcome = next.run(call).await;
        trace.add(format!("/{}", self.0));
        outcome
    }
}

macro_rules! guards {
    ($($name:ident)*) => {$(
        struct $name;

        impl FromContext for $name {
            async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
                let trace = ctx.state::<Trace>()?;
                trace.add(stringify!($name));
                let refused = ctx.cookies().get("refused") == Some(stringify!($name));
                ensure!(!refused, ActionError::unauthenticated("sign in first"));
                Ok(Self)
            }

            fn require(requirements: &mut Requirements) {
                requirements.state::<Trace>();
            }
        }
    )*};
}

guards! { Member Admin Owner }

#[input]
struct OrgId {
    org: u32,
}

#[output]
struct Seen {
    by: String,
    org: u32,
}

/// Reads an organisation.
#[action(name = "org:read", get = "/about", post = "/about")]
async fn read(ctx: Context, _owner: Owner, input: OrgId) -> Result<Seen, ActionError> {
    ctx.state::<Trace>()?.add("function");
    Ok(Seen { by: ctx.name().into(), org: input.org })
}

/// Reads an organisation, without a path of its own.
#[action(name = "org:read", version = 2, post)]
async fn read_2(ctx: Context, input: OrgId) -> Result<Seen, ActionError> {
    ctx.state::<Trace>()?.add("function 2");
    Ok(Seen { by: "version 2".into(), org: input.org })
}

/// Reads the first organisation.
#[action(name = "org:first", get)]
async fn read_first(ctx: Context) -> Result<Seen, ActionError> {
    ctx.call::<read>(OrgId { org: 1 }).await
}

/// Is in no group.
#[action(name = "open", get, post)]
async fn open(_ctx: Context, _: NoInput) -> Result<u32, ActionError> {
    Ok(1)
}

/// The same in a group.
#[action(name = "open", version = 2, post = "/open/2")]
async fn open_2(_ctx: Context, _: NoInput) -> Result<u32, ActionError> {
    Ok(2)
}

#[input]
struct Id {
    id: u32,
}

/// Has the path of another action, in its group.
#[action(post = "/org:read")]
async fn same_path(_ctx: Context, input: Id) -> Result<u32, ActionError> {
    Ok(input.id)
}

fn app() -> App {
    let inner = group("/orgs/{org}").guard::<Admin>().layer(Around("inner")).actions(actions![read]);
    let outer = group("/staff").layer(Around("outer")).guard::<Member>().actions(inner);
    App::new("groups")
        .state(Trace::default())
        .layer(Around("app"))
        .actions(outer.actions(group("/more").layer(Around("more")).actions(actions![read_2])))
        .actions(group("").guard::<Admin>().actions(actions![open_2]))
        .actions(actions![open, read_first])
}

fn trace(app: &testing::TestApp) -> Vec<String> {
    app.node().state::<Trace>().unwrap().take()
}

const WHOLE: [&str; 10] = ["app", "outer", "inner", "Member", "Admin", "Owner", "function", "/inner", "/outer", "/app"];

#[tokio::test]
async fn layers_come_before_guards_and_outer_groups_before_inner_ones_over_every_transport() {
    let app = testing::start(app()).await;
    let client = app.client();
    let about = client.get("/api/staff/orgs/7/about").await.ok().json();
    assert_eq!((&about["by"], &about["org"]), (&json!("org:read"), &json!(7)));
    assert_eq!(trace(&app), WHOLE);
    assert_eq!(client.call::<read>(OrgId { org: 8 }).await.unwrap().org, 8, "the kit knows the prefix");
    trace(&app);
    let mut socket = client.socket().await;
    assert_eq!(socket.call::<read>(OrgId { org: 9 }).await.unwrap().org, 9);
    assert_eq!(trace(&app), WHOLE);
    client.get("/api/orgs/7/about").await.refused("not_found");
}

#[tokio::test]
async fn a_guard_of_a_group_refuses_clients_other_actions_and_tasks_alike() {
    let app = testing::start(app()).await;
    let client = app.client();
    for (guard, ran) in [("Member", 4), ("Admin", 5), ("Owner", 6)] {
        client.set_cookie("refused", guard);
        // The second one calls the action within a call of its own, which the application's layer is around too.
        for (path, before) in [("/api/staff/orgs/7/about", 0), ("/api/org:first", 1)] {
            client.get(path).await.refused("unauthenticated");
            let began = trace(&app).into_iter().filter(|part| !part.starts_with('/')).count();
            assert_eq!(began, before + ran, "{guard} {path}");
        }
    }
    client.set_cookie("refused", "");
    client.get("/api/org:first").await.ok();
    assert_eq!(trace(&app)[1..11], WHOLE, "within the layer around the calling action");
}

#[tokio::test]
async fn a_version_that_the_body_names_is_in_its_own_groups_too() {
    let app = testing::start(app()).await;
    let client = app.client();
    let opened = async |client: &TestClient| client.post("/api/open", json!({"apiVersion": 2})).await;
    assert_eq!(opened(&client).await.ok().json()["result"], 2);
    client.set_cookie("refused", "Admin");
    opened(&client).await.refused("unauthenticated");
    client.get("/api/open").await.ok();
    client.set_cookie("refused", "");
    trace(&app);
    // Both versions are in the outer group, which is passed once.
    let other = client.post("/api/staff/orgs/7/about", json!({"apiVersion": 2})).await.ok().json();
    assert_eq!((&other["by"], &other["org"]), (&json!("version 2"), &json!(7)));
    let parts = trace(&app);
    let began: Vec<_> = parts.iter().filter(|part| !part.starts_with('/')).collect();
    assert_eq!(began, ["app", "outer", "inner", "Member", "Admin", "Owner", "more", "function 2"]);
}

#[tokio::test]
async fn a_boot_refuses_groups_that_cannot_be() {
    let check = async |actions: ActionSet, expected: &str| {
        let reason = testing::start(App::new("groups").state(Trace::default()).actions(actions)).refused().await;
        assert!(reason.contains(expected), "{reason}");
    };
    let of = |prefix: &str| ActionSet::from(group(prefix).actions(actions![open]));
    for (prefix, mistake) in [
        ("admin", "a prefix starts with `/`, or is empty"),
        ("/admin/", "no `/` at its end"),
        ("/", "no `/` at its end"),
        ("/{*rest}", "a parameter of a prefix is a whole segment"),
        ("/a{b}", "a parameter of a prefix is a whole segment"),
        ("/orgs/{org}", "has {org}, and its input has no such field"),
    ] {
        check(of(prefix), mistake).await;
    }
    let mut twice = of("/a");
    twice.extend(of("/b"));
    check(twice, r#"is there twice, in the group "/a" and in the group "/b": an action is in one group"#).await;
    let mut outside = of("/a");
    outside.extend(actions![open]);
    check(outside, r#"in the group "/a" and outside of groups"#).await;
    let doubled = group("/{org}").actions(group("/x/{org}").actions(actions![read]));
    check(doubled.into(), "has {org} twice").await;
    let mut clash = ActionSet::from(group("/orgs/{org}").actions(actions![read_2]));
    clash.extend(group("/orgs/{id}").actions(actions![same_path]));
    check(clash, "are the same path: name their parameters alike").await;
}

#[tokio::test]
async fn the_states_of_a_groups_guards_are_checked_at_boot() {
    let actions = group("/staff").guard::<Member>().actions(actions![open]);
    let reason = testing::start(App::new("groups").actions(actions)).refused().await;
    assert!(reason.contains(r#"the group "/staff" needs a state of type"#), "{reason}");
}
