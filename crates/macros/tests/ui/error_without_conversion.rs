use phalanx::prelude::*;

enum Refusal {
    Rude,
}

#[action(get)]
async fn greet(_ctx: Context) -> Result<(), Refusal> {
    Err(Refusal::Rude)
}

fn main() {
    let _ = App::new("ui").actions(actions![greet]);
}
