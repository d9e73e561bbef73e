use phalanx::prelude::*;

#[action]
async fn greet(_ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

#[action]
async fn wave(_ctx: &Context) -> Result<(), ActionError> {
    Ok(())
}

#[task]
async fn clean(_: NoInput, _ctx: TaskContext) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet, wave]).tasks(tasks![clean]);
}
