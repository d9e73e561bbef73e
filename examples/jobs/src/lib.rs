//! A page that starts jobs and shows their progress: `cargo run -p jobs`, then open http://localhost:8080. An export is a
//! job; an album is a batch of jobs, one for the thumbnail of each photo.
//!
//! With `REDIS_URL` set, run it on two ports and kill the node that a row names: within ten seconds the export goes on at
//! the other node, after the page that it had reached, and so does an album. Its tests are in `tests`.

pub mod exporting;
#[path = "../../folders.rs"]
mod folders;
pub mod gallery;
mod photos;
mod picture;

use phalanx::prelude::*;

/// The server alone speaks in the rooms: the pages show what they receive there.
async fn server_alone(publishing: Publishing) -> Result<Option<RoomMessage>, ActionError> {
    ensure!(publishing.connection().is_none(), ActionError::forbidden("this room is for progress"));
    Ok(Some(publishing.into_message()))
}

/// Builds the application.
pub fn app() -> App {
    let folders = folders::find("jobs");
    App::new("jobs")
        .version(env!("CARGO_PKG_VERSION"))
        .config_dir(folders.config)
        .public_dir(folders.public)
        .actions(actions![exporting::start_export, exporting::export_status, exporting::exports])
        .tasks(tasks![exporting::export])
        .actions(actions![gallery::make_album, gallery::album, gallery::albums, gallery::thumbnail])
        .tasks(tasks![gallery::make_thumbnail, gallery::tell_progress, gallery::finish_album])
        .before_publish(server_alone)
}
