use phalanx::prelude::*;

struct SignedIn;

#[action(get)]
async fn greet(_ctx: Context, _me: SignedIn, _: NoInput) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
