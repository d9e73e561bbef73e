use phalanx::prelude::*;

#[action(vesion = 2, cancel_on_disconect, colour = "red")]
async fn greet(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
