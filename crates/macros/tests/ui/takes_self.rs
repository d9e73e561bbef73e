use phalanx::prelude::*;

struct Greeter;

impl Greeter {
    #[action(get)]
    async fn greet(&self, _ctx: Context) -> Result<(), ActionError> {
        Ok(())
    }
}

fn main() {}
