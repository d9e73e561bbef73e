//! Actions that sign a user in and out.

use phalanx::prelude::*;
use phalanx::validator::ValidationError;

/// The session of a user.
#[session]
#[derive(Clone)]
pub(crate) struct Visitor {
    user: String,
    visits: u32,
}

impl SessionData for Visitor {
    fn user(&self) -> Option<&str> {
        Some(&self.user)
    }
}

#[input]
pub(crate) struct Credentials {
    #[validate(length(min = 3, max = 32), custom(function = check_name))]
    user: String,
    #[secret]
    password: String,
}

fn check_name(name: &str) -> Result<(), ValidationError> {
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if is_name { Ok(()) } else { Err(ValidationError::new("pattern")) }
}

#[output]
pub(crate) struct SignedIn {
    user: String,
}

#[output]
pub(crate) struct Visit {
    user: String,
    visits: u32,
}

/// Signs a user in, by any name and the password `open sesame`.
#[action(name = "signIn", post, block(websocket), limit = Limit::named("sign_in").per(10, MINUTE).by_address())]
pub(crate) async fn sign_in(session: Session<Visitor>, input: Credentials) -> Result<SignedIn, ActionError> {
    ensure!(input.password == "open sesame", ActionError::unauthenticated("wrong name or password"));
    session.start(Visitor { user: input.user.clone(), visits: 0 }).await?;
    Ok(SignedIn { user: input.user })
}

/// Shows the user, and how often they asked.
#[action(name = "whoAmI", get)]
pub(crate) async fn who_am_i(session: Session<Visitor>) -> Result<Visit, ActionError> {
    let visitor = session.update(|visitor| visitor.visits += 1).await?;
    Ok(Visit { user: visitor.user.clone(), visits: visitor.visits })
}

/// Signs the user out, on every node.
#[action(name = "signOut", post)]
pub(crate) async fn sign_out(session: Session<Visitor>) -> Result<(), ActionError> {
    session.end().await
}
