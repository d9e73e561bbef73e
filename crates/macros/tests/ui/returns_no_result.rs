use phalanx::prelude::*;

#[output]
struct Greeting {
    text: String,
}

#[action(get)]
async fn greet(_ctx: Context) -> Greeting {
    Greeting { text: "hello".to_owned() }
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
