use phalanx::prelude::*;

struct Users;

#[action(get)]
async fn greet(_ctx: Context, _users: State<Users>) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
