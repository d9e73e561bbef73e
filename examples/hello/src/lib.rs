//! The smallest application: `cargo run -p hello`, then `curl localhost:8080/api/greet/Ada`. Its tests are in `tests`.

use phalanx::prelude::*;

/// The person to greet.
#[input]
#[derive(Debug)]
pub struct Greet {
    /// The name.
    #[validate(length(min = 1, max = 80))]
    pub name: String,
}

/// The greeting.
#[output]
#[derive(Debug)]
pub struct Greeting {
    /// Its text.
    pub text: String,
}

/// Greets a person.
#[action(get = "/greet/{name}")]
pub async fn greet(input: Greet) -> Result<Greeting, ActionError> {
    Ok(Greeting { text: format!("Hello, {}!", input.name) })
}

/// Builds the application.
pub fn app() -> App {
    App::new("hello").actions(actions![greet])
}
