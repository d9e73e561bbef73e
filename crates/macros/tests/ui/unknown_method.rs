use phalanx::prelude::*;

#[action(fetch = "/greet", head = "/greet", options)]
async fn greet(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
