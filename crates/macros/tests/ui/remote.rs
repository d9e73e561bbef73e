use phalanx::prelude::*;

#[remote(get = "/authorize", deadlin = "2s")]
fn authorize(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[remote]
struct Authorize;

fn main() {
    let _ = App::new("ui").remotes(remotes![authorize]);
}
