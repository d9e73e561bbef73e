use phalanx::prelude::*;

fn main() {}

#[derive(ActionError)]
enum Wrong {
    #[action_error(not_found, message = "there is no {what}")]
    NoSuchField { id: u64 },
    #[action_error(conflict, message = "{error} is no field")]
    NameOfTheExpansion,
    #[action_error(transparent)]
    NoActionError(u64),
}
