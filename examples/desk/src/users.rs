//! The users, who are made up, and the check of their passwords.

use std::num::NonZeroU32;

use phalanx::prelude::*;
use ring::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use tokio::task::spawn_blocking;

use crate::account::Account;

/// A tenth of what OWASP recommends: examples are built without optimization.
const ROUNDS: NonZeroU32 = NonZeroU32::new(60_000).expect("it is not zero");

/// The salt of the demo. A desk with users of its own has another one for each.
const SALT: &[u8] = b"the users of the demo";

/// The users by their names, all with one password.
#[derive(Debug)]
pub struct Users {
    names: [(&'static str, bool); 3],
    password: [u8; 32],
}

impl Users {
    pub(crate) fn demo() -> Self {
        let mut password = [0; 32];
        pbkdf2::derive(PBKDF2_HMAC_SHA256, ROUNDS, SALT, b"open sesame", &mut password);
        Self { names: [("ada", true), ("bob", false), ("cy", false)], password }
    }

    /// The account of a user with the right password. A name that no user has takes as long: the time tells nothing.
    pub(crate) async fn check(&self, name: &str, password: String) -> Result<Option<Account>, ActionError> {
        let expected = self.password;
        let check = move || pbkdf2::verify(PBKDF2_HMAC_SHA256, ROUNDS, SALT, password.as_bytes(), &expected).is_ok();
        let is_right = spawn_blocking(check).await.or_internal()?;
        let user = self.names.iter().find(|(user, _)| is_right && *user == name);
        Ok(user.map(|&(user, is_agent)| Account { user: user.to_owned(), is_agent }))
    }
}
