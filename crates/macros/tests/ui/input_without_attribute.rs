use phalanx::prelude::*;

struct Greet {
    name: String,
}

#[action(get)]
async fn greet(_ctx: Context, input: Greet) -> Result<String, ActionError> {
    Ok(input.name)
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
