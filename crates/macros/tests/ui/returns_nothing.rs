use phalanx::prelude::*;

#[action(get)]
async fn greet(_ctx: Context) {}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
