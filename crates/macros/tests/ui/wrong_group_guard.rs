// Its errors come with the code of `main`.
use phalanx::group;
use phalanx::prelude::*;

struct Transaction;

impl FromContext for Transaction {
    const AFTER_BODY: bool = true;

    async fn from_context(_: &Context) -> Result<Self, ActionError> {
        Ok(Self)
    }
}

struct Admin;

impl FromContext for Admin {
    async fn from_context(_: &Context) -> Result<Self, ActionError> {
        Err(ActionError::unauthenticated("sign in first"))
    }
}

fn main() {
    let late = group("/late").guard::<Transaction>();
    let open = group("/open").guard::<Option<Admin>>();
    let _ = App::new("ui").actions(late).actions(open);
}
