use phalanx::prelude::*;

async fn greet(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
