//! Actions that sign a user in and out.

use phalanx::prelude::*;

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
    #[validate(length(min = 3, max = 32))]
    user: String,
    #[secret]
    password: String,
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
pub(crate) async fn sign_in(
    _ctx: Context,
    session: Session<Visitor>,
    input: Credentials,
) -> Result<SignedIn, ActionError> {
    let is_name = input.user.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    ensure!(is_name && input.password == "open sesame", ActionError::unauthenticated("wrong name or password"));
    session.start(Visitor { user: input.user.clone(), visits: 0 }).await?;
    Ok(SignedIn { user: input.user })
}

/// Who is signed in, and how often they asked.
#[action(name = "whoAmI", get)]
pub(crate) async fn who_am_i(_ctx: Context, session: Session<Visitor>, _: NoInput) -> Result<Visit, ActionError> {
    let visitor = session.update(|visitor| visitor.visits += 1).await?;
    Ok(Visit { user: visitor.user.clone(), visits: visitor.visits })
}

/// Signs the user out, on every node.
#[action(name = "signOut", post)]
pub(crate) async fn sign_out(_ctx: Context, session: Session<Visitor>, _: NoInput) -> Result<(), ActionError> {
    session.end().await
}
