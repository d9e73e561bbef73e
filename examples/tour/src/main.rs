//! The tour: one application that exercises the whole server. Try it with
//! `cargo run -p tour`, then `curl localhost:8080/api/status`.

mod actions;
#[path = "../../folders.rs"]
mod folders;
mod hooks;
mod journal;
mod release;
mod tasks;

use actions::{basic, batches, cluster, jobs, requests, rooms, sessions, shared, tags};
use journal::Journal;
use phalanx::event::Event;
use phalanx::prelude::*;
use release::Faulty;

fn main() -> phalanx::ExitCode {
    let folders = folders::find("tour");
    let mut app = App::new("tour")
        .version(env!("CARGO_PKG_VERSION"))
        .config_dir(folders.config)
        .public_dir(folders.public)
        .actions(actions![
            basic::status,
            basic::random_number,
            basic::random_number_2,
            basic::echo,
            basic::validation_test,
            basic::sleep_test,
            basic::block_test,
            basic::recursive_action,
            basic::body_test,
            basic::panic_test,
            basic::upload,
            basic::private_note,
            basic::http_only,
            basic::limited,
            requests::webhook,
            sessions::sign_in,
            sessions::who_am_i,
            sessions::sign_out,
            shared::cache_test,
            shared::counter,
            shared::list,
            rooms::create_chat_room,
            rooms::room_status,
            rooms::room_say,
            tags::tell_user,
            tags::user_sockets,
            cluster::connection_apply,
            cluster::nodes,
            cluster::nodes_ask,
            jobs::task_enqueue,
            jobs::task_stats,
            jobs::task_status,
            jobs::task_delete,
            jobs::task_retry_all,
            batches::batch_create,
            batches::batch_status,
            batches::batch_seal,
            jobs::queue_pause,
            jobs::queue_resume,
        ])
        .session::<sessions::Visitor>()
        .tasks(tasks::all())
        .configure(tasks::configure)
        .remotes(remotes![hooks::authorize, cluster::uptime])
        .before_join(hooks::require_level)
        .after_leave(hooks::record_leave)
        .before_publish(hooks::run_commands);
    if let Some(faulty) = Faulty::from_environment() {
        app = app.initializer(faulty);
    }
    match Journal::from_environment() {
        Some(journal) => app.layer(journal.clone()).observe(move |event: &Event| journal.observe(event)).run(),
        None => app.run(),
    }
}
