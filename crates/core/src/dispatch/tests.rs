use std::future::pending;

use serde_json::json;

use super::*;
use crate::action::{Action, Exposure, OnDisconnect};
use crate::answer::{Answer, answering};
use crate::backend::Backend;
use crate::config::{Config, Environment};
use crate::node::Setup;
use crate::params::NoInput;
use crate::registry::Definitions;
use crate::shutdown::Shutdown;

const SECOND: Duration = Duration::from_secs(1);

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// Panics when somebody wants to read it.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no words");
    }
}

impl std::error::Error for Unspeakable {}

const fn action(name: &'static str, deadline: Deadline, run: Run) -> ActionDef {
    ActionDef {
        name,
        version: 1,
        description: "",
        routes: &[],
        exposure: Exposure::Public,
        deadline,
        on_disconnect: OnDisconnect::Finish,
        input: crate::input_schema::<NoInput>,
        output: crate::input_schema::<NoInput>,
        require: |_| {},
        run,
    }
}

type Run = fn(Context, Params) -> BoxFuture<'static, Outcome>;

macro_rules! actions {
    ($($name:ident, $deadline:expr, $run:expr;)*) => {$(
        struct $name;

        impl Action for $name {
            type Input = NoInput;
            type Output = ();
            const DEF: ActionDef = action(stringify!($name), $deadline, $run);
        }
    )*};
}

actions! {
    Mined, Deadline::After(SECOND), |_, _| answering(async {
        let _bomb = Bomb;
        pending().await
    });
    Slow, Deadline::After(SECOND), |_, _| answering(pending());
    Patient, Deadline::Never, |ctx, _| answering(async move { Answer::json(&left(&ctx)) });
    CallsSlow, Deadline::After(Duration::from_secs(9)), |ctx, _| answering(async move {
        let inner = ctx.call_encoded::<Slow>(&NoInput {}).await;
        Answer::json(&json!([inner.unwrap_err().code(), left(&ctx)]))
    });
    CallsPatient, Deadline::After(Duration::from_secs(9)), |ctx, _| answering(async move {
        ctx.call_encoded::<Patient>(&NoInput {}).await
    });
    CallsMined, Deadline::Never, |ctx, _| answering(async move {
        ctx.call_encoded::<Mined>(&NoInput {}).await
    });
}

/// How many seconds a call has left.
fn left(ctx: &Context) -> Option<u64> {
    ctx.deadline().map(|deadline| (deadline - Instant::now()).as_secs())
}

async fn node() -> Node {
    let config = Config::default();
    let actions = vec![Mined::DEF, Slow::DEF, Patient::DEF, CallsSlow::DEF, CallsPatient::DEF, CallsMined::DEF];
    let setup = Setup {
        app: "app".into(),
        version: "1".into(),
        node_id: "node".into(),
        environment: Environment("test".into()),
        definitions: Definitions { actions, ..Definitions::default() },
        initializers: Vec::new(),
        transports: Vec::new(),
        backend: Backend::memory(&config),
        shutdown: Shutdown::default(),
        config,
    };
    Node::start(setup).await.unwrap()
}

async fn call<A: Action>(node: &Node) -> Result<serde_json::Value, ActionError> {
    let action = node.registry().find(A::DEF.name, None).unwrap().clone();
    let caller = Arc::new(Caller::internal());
    let request = Request { action, params: Params::default(), caller, id: node.next_request() };
    let outcome = match start(node, request).await {
        Started::Done(outcome) => outcome,
        Started::Running(running) => running.finish().await,
    };
    outcome?.decode()
}

#[tokio::test(start_paused = true)]
async fn what_a_late_call_leaves_behind_may_panic() {
    let node = node().await;
    assert_eq!(call::<Mined>(&node).await.unwrap_err().code(), "internal");
    assert_eq!(call::<CallsMined>(&node).await.unwrap_err().code(), "internal");
    assert_eq!(call::<Patient>(&node).await.unwrap(), json!(null), "the node lives");
}

#[tokio::test(start_paused = true)]
async fn what_a_late_hook_leaves_behind_may_panic() {
    let node = node().await;
    let hook = async {
        let _bomb = Bomb;
        pending::<()>().await
    };
    node.guarded("hook", Box::pin(hook)).await;
    assert_eq!(call::<Patient>(&node).await.unwrap(), json!(null), "the node lives");
}

#[tokio::test(start_paused = true)]
async fn a_call_within_a_call_ends_by_the_sooner_of_both_deadlines() {
    let node = node().await;
    assert_eq!(call::<CallsSlow>(&node).await.unwrap(), json!(["timeout", 8]));
    assert_eq!(call::<CallsPatient>(&node).await.unwrap(), json!(9));
}

#[test]
fn an_error_whose_words_panic_is_written_all_the_same() {
    assert_eq!(Chain(&Unspeakable).to_string(), "(its message panicked)");
    let wrapped = ActionError::internal(Unspeakable);
    assert_eq!(Chain(&wrapped).to_string(), "internal error: (its message panicked)");
}
