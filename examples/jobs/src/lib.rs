//! A page that starts exports as jobs and shows their progress: `cargo run -p jobs`, then open http://localhost:8080.
//!
//! With `REDIS_URL` set, run it on two ports and kill the node that a row names: within ten seconds the export goes on at
//! the other node, after the page that it had reached. Its tests are in `tests`.

pub mod exporting;
#[path = "../../folders.rs"]
mod folders;

use phalanx::prelude::*;

/// Builds the application.
pub fn app() -> App {
    let folders = folders::find("jobs");
    App::new("jobs")
        .version(env!("CARGO_PKG_VERSION"))
        .config_dir(folders.config)
        .public_dir(folders.public)
        .actions(actions![exporting::start_export, exporting::export_status, exporting::exports])
        .tasks(tasks![exporting::export])
}
