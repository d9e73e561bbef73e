use phalanx::prelude::*;

#[input]
struct Greet {
    name: String,
}

#[action(get)]
async fn greet(_ctx: Context, input: &Greet) -> Result<String, ActionError> {
    Ok(input.name.clone())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
