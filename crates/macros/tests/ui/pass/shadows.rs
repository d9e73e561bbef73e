//! What the attributes write leans on no name that the author could have taken.
#![allow(non_local_definitions, dead_code, reason = "names are taken for the sake of being taken")]

use phalanx::{Action, ActionError, Connection, Context, NoInput, action, input, output};

type Result<T> = core::result::Result<T, ActionError>;
struct Option;
struct Vec;
struct Box;
struct Deadline;
struct Params;
struct Route;
mod core_of_the_matter {}
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
fn names_of_the_author_are_in_nobodys_way() {
    assert_eq!(answering::DEF.name, "answering");
}
