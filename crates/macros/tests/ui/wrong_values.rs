use phalanx::prelude::*;

#[action(name = "say hello", version = 0, internal = true, get = 1)]
async fn greet(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(version = 1, version = 2)]
async fn greet_twice(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
