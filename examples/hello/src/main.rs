//! The smallest application: `cargo run -p hello`, then `curl localhost:8080/api/greet/Ada`.

use phalanx::prelude::*;

#[input]
struct Greet {
    #[validate(length(min = 1, max = 80))]
    name: String,
}

#[output]
struct Greeting {
    text: String,
}

/// Greets a person.
#[action(get = "/greet/{name}")]
async fn greet(_ctx: Context, input: Greet) -> Result<Greeting, ActionError> {
    Ok(Greeting { text: format!("Hello, {}!", input.name) })
}

fn main() -> phalanx::ExitCode {
    App::new("hello").actions(actions![greet]).run()
}
