use phalanx::prelude::*;

#[action(post, max_body = 65536, max_upload = "0B")]
async fn greet(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(max_body = "64KiB", raw_body)]
async fn without_route(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(post, raw_body, max_upload = "1MiB")]
async fn raw(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![greet, without_route, raw]);
}
