use phalanx::prelude::*;

#[action(limit = "10")]
async fn without_time(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(limit = "0/1m", limit = "10/1m")]
async fn without_calls(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

#[action(limit = 10)]
async fn number(_ctx: Context) -> Result<(), ActionError> {
    Ok(())
}

fn main() {}
