use phalanx::prelude::*;

#[action(get)]
async fn named_like_its_file(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {}
