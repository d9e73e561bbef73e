use std::future::pending;

use serde_json::json;

use super::*;

use crate::action::{Action, ActionDef, BodyRules, Exposure};
use crate::answer::{Answer, answering};
use crate::config::Config;
use crate::engine::setup::NodeSetup;
use crate::future::Deadline;
use crate::params::NoInput;
use crate::registry::Definitions;

const SECOND: Duration = Duration::from_secs(1);

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// Panics when it is formatted.
#[derive(Debug)]
struct PanicsInDisplay;

impl std::fmt::Display for PanicsInDisplay {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no words");
    }
}

impl std::error::Error for PanicsInDisplay {}

const fn action(name: &'static str, deadline: Deadline, run: Run) -> ActionDef {
    ActionDef {
        name,
        version: 1,
        description: "",
        routes: &[],
        exposure: Exposure::Public,
        cross_site: false,
        deadline,
        on_disconnect: OnDisconnect::Finish,
        finish_stream: false,
        limits: Vec::new,
        body: BodyRules::DEFAULT,
        input: crate::params::input_schema::<NoInput>,
        output: crate::params::input_schema::<NoInput>,
        require: |_| {},
        run,
    }
}

type Run = fn(Context, CallBody) -> BoxFuture<'static, Outcome>;

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

/// The seconds that a call has left.
fn left(ctx: &Context) -> Option<u64> {
    ctx.deadline().map(|deadline| (deadline - Instant::now()).as_secs())
}

async fn start_engine() -> Engine {
    let actions = vec![Mined::DEF, Slow::DEF, Patient::DEF, CallsSlow::DEF, CallsPatient::DEF, CallsMined::DEF];
    let mut setup = NodeSetup::new("app", Config::default());
    setup.definitions = Definitions { actions: actions.into(), ..Definitions::default() };
    Engine::start(setup).await.unwrap()
}

async fn call<A: Action>(engine: &Engine) -> Result<serde_json::Value, ActionError> {
    call_internal(engine, A::DEF.name, None, Params::default()).await?.decode()
}

#[tokio::test(start_paused = true)]
async fn a_late_call_may_panic_in_its_drop() {
    let engine = start_engine().await;
    assert_eq!(call::<Mined>(&engine).await.unwrap_err().code(), "internal");
    assert_eq!(call::<CallsMined>(&engine).await.unwrap_err().code(), "internal");
    assert_eq!(call::<Patient>(&engine).await.unwrap(), json!(null), "the node still runs");
}

#[tokio::test(start_paused = true)]
async fn a_late_hook_may_panic_in_its_drop() {
    let engine = start_engine().await;
    let hook = async {
        let _bomb = Bomb;
        pending::<()>().await
    };
    engine.parts().run_guarded(Box::pin(hook)).await;
    assert_eq!(call::<Patient>(&engine).await.unwrap(), json!(null), "the node still runs");
}

#[tokio::test]
async fn a_hook_that_is_cut_off_is_named() {
    let engine = start_engine().await;
    let running = tokio::spawn({
        let engine = engine.clone();
        async move { engine.parts().run_guarded(pending()).await }
    });
    tokio::task::yield_now().await;
    engine.shutdown().cut().await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    assert_eq!(engine.shutdown().cut_work().unwrap(), "hook test (its subject)");
}

#[tokio::test(start_paused = true)]
async fn a_nested_call_ends_by_the_sooner_of_both_deadlines() {
    let engine = start_engine().await;
    assert_eq!(call::<CallsSlow>(&engine).await.unwrap(), json!(["timeout", 8]));
    assert_eq!(call::<CallsPatient>(&engine).await.unwrap(), json!(9));
}

#[test]
fn an_error_whose_message_panics_is_written_all_the_same() {
    assert_eq!(Chain(&PanicsInDisplay).to_string(), "(its message panicked)");
    let wrapped = ActionError::internal(PanicsInDisplay);
    assert_eq!(Chain(&wrapped).to_string(), "internal error: (its message panicked)");
}

#[test]
fn a_cause_that_reads_as_its_error_is_written_once() {
    let of = |cause| ActionError::conflict("it is full").with_source(std::io::Error::other(cause));
    assert_eq!(Chain(&of("it is full")).to_string(), "it is full");
    assert_eq!(Chain(&of("no bytes are left")).to_string(), "it is full: no bytes are left");
}
