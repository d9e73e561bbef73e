use phalanx::prelude::*;

#[input]
struct Greet {
    #[validate(lenght(min = 1))]
    name: String,
}

#[action]
async fn greet(_ctx: Context, input: Greet) -> Result<String, ActionError> {
    Ok(input.name)
}

#[input]
struct Wave {
    #[validate(length(minimum = 1))]
    name: String,
}

#[action]
async fn wave(_ctx: Context, input: Wave) -> Result<String, ActionError> {
    Ok(input.name)
}

fn main() {
    let _ = App::new("ui").actions(actions![greet, wave]);
}
