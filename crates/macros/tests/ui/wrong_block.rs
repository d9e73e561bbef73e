use phalanx::prelude::*;

#[action(get, block(web))]
async fn greet(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(get, block)]
async fn greet_again(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
