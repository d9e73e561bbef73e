use phalanx::prelude::*;

struct Greeting {
    text: String,
}

#[action(get)]
async fn greet(_ctx: Context) -> Result<Greeting, ActionError> {
    Ok(Greeting { text: "hello".to_owned() })
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
