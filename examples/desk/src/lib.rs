//! A support desk: `cargo run -p desk`, then open http://localhost:8080 in two browsers, and sign in as `ada`, who is an
//! agent, and as `bob`; the password is `open sesame`. Its tests are in `tests`.

pub mod account;
pub mod actions;
#[path = "../../folders.rs"]
mod folders;
pub mod tickets;
pub mod users;

use std::path::PathBuf;

use phalanx::group;
use phalanx::prelude::*;
use phalanx::serde::{Deserialize, Serialize};

use account::{Account, Agent};
use actions::{TICKETS, attach, open};
use tickets::Tickets;
use users::Users;

/// The section `desk` of the settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(crate = "phalanx::serde", default)]
pub struct DeskSettings {
    /// The folder of the files of tickets.
    pub files: PathBuf,
}

/// The room of all tickets is for agents.
async fn agents_alone(joining: Joining) -> Result<(), ActionError> {
    if joining.room() == TICKETS {
        joining.context().guard::<Agent>().await?;
    }
    Ok(())
}

/// The server alone speaks there.
async fn server_alone(publishing: Publishing) -> Result<Option<RoomMessage>, ActionError> {
    ensure!(publishing.connection().is_none(), ActionError::forbidden("open a ticket instead"));
    Ok(Some(publishing.into_message()))
}

/// Builds the application.
pub fn app() -> App {
    let folders = folders::find("desk");
    App::new("desk")
        .version(env!("CARGO_PKG_VERSION"))
        .config_dir(folders.config)
        .public_dir(folders.public)
        .section::<DeskSettings>("desk")
        .session::<Account>()
        .state(Tickets::default())
        .state(Users::demo())
        .actions(actions![actions::sign_in, actions::sign_out, actions::sign_out_others, actions::who_am_i])
        .actions(actions![actions::tickets, actions::download])
        .actions(group("").limit(Limit::named("write").per(60, HOUR).by_user()).actions(actions![open, attach]))
        .actions(group("/agent").guard::<Agent>().actions(actions![actions::close]))
        .before_join(agents_alone)
        .before_publish(server_alone)
}
