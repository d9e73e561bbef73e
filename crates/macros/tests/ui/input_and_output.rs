use phalanx::prelude::*;

#[input(strict)]
struct Greet {
    #[serde(rename = "firstName")]
    first_name: String,
}

#[output]
union Greeting {
    short: u8,
    long: u64,
}

#[input]
fn name() {}

#[action]
async fn greet(_ctx: Context, input: Greet) -> Result<String, ActionError> {
    Ok(input.first_name)
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
