//! The expansions depend on no name that the author may define.
#![allow(non_local_definitions, dead_code, reason = "the names are only there to shadow others")]

use phalanx::{Action, ActionError, Connection, Context, NoInput, action, input, output};

type Result<T> = core::result::Result<T, ActionError>;
struct Option;
struct Vec;
struct Box;
struct Deadline;
struct Params;
struct Route;
mod core_utilities {}
trait Input {}
trait Validate {}

#[input]
pub(crate) struct Returned {
    params: u8,
    ctx: u8,
}

#[output]
pub(crate) struct Outcome {
    input: u8,
}

#[action(get, deadline = "1s")]
pub(crate) async fn answering(ctx: Context, params: Returned) -> Result<Outcome> {
    let _ = ctx;
    Ok(Outcome { input: params.params + params.ctx })
}

#[action]
pub(crate) async fn ctx(_ctx: Context) -> Result<()> {
    Ok(())
}

#[action]
pub(crate) async fn params(_ctx: Context, _: Returned) -> Result<()> {
    Ok(())
}

#[action]
pub(crate) async fn input(_ctx: Context, _: Returned) -> Result<()> {
    Ok(())
}

#[action]
pub(crate) async fn guard_0(_ctx: Context, _guard: Connection, _: NoInput) -> Result<()> {
    Ok(())
}

#[action]
pub(crate) async fn returned(_ctx: Context) -> Result<()> {
    Ok(())
}

#[test]
fn names_of_the_author_do_not_clash_with_the_expansion() {
    assert_eq!(answering::DEF.name, "answering");
}
