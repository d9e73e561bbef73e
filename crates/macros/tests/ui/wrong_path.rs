use phalanx::prelude::*;

#[action(get = "greet", post = "/greet/:name", put = "/greet/v{name}", patch = "/{*rest}/greet")]
async fn greet(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
