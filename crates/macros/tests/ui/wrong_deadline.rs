use phalanx::prelude::*;

#[action(deadline = "5")]
async fn greet(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(deadline = 30)]
async fn greet_slowly(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
