use phalanx::prelude::*;

#[action(gett, deadline = "soon")]
fn greet(_name: &str) {}

fn main() {}
