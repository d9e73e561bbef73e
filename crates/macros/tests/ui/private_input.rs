#![allow(private_interfaces)]

use phalanx::prelude::*;

#[input]
struct Greet {
    name: String,
}

#[action(get)]
pub async fn greet(_ctx: Context, input: Greet) -> Result<String, ActionError> {
    Ok(input.name)
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
