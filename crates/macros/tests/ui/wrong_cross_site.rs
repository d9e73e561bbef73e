use phalanx::prelude::*;

#[action(get, cross_site)]
async fn only_reads(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(cross_site)]
async fn without_route(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(internal, cross_site)]
async fn unreachable(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(post, cross_site = "https://a.example")]
async fn with_value(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(post, cross_sites)]
async fn misspelled(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {
    let _ = App::new("ui").actions(actions![only_reads]);
}
