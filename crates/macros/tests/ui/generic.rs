use phalanx::prelude::*;

#[input]
struct Greet {
    name: String,
}

#[action]
async fn greet<T: Clone>(_ctx: Context, _users: State<T>) -> Result<(), ActionError> {
    Ok(())
}

#[action]
async fn greet_twice(_ctx: Context, _name: impl Into<String>, _input: Greet) -> Result<(), ActionError> {
    Ok(())
}

fn main() {}
