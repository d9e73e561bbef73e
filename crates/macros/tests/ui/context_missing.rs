use phalanx::prelude::*;

#[input]
struct Greet {
    name: String,
}

#[action]
async fn greet(input: Greet) -> Result<String, ActionError> {
    Ok(input.name)
}

#[action]
async fn ping() -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
