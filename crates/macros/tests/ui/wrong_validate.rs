use phalanx::prelude::*;

#[input]
struct Greet {
    #[validate(lenght(min = 1))]
    name: String,
}

#[action]
async fn greet(input: Greet) -> Result<String, ActionError> {
    Ok(input.name)
}

#[input]
struct Wave {
    #[validate(length(minimum = 1))]
    name: String,
}

#[action]
async fn wave(input: Wave) -> Result<String, ActionError> {
    Ok(input.name)
}

fn main() {
    let _ = App::new("ui").actions(actions![greet, wave]);
}
