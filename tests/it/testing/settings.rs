use phalanx::config::NodeRole;
use phalanx::prelude::*;
use phalanx::testing;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Find, SetName, app, failure, find, set_name};

#[derive(Clone, Default, Serialize, Deserialize)]
struct Desk {
    tickets: usize,
    file: String,
}

struct Mailer(&'static str);

type Shown = (usize, String, String);

/// Returns a section and a state.
#[action(get)]
async fn shown(ctx: Context, desk: State<Desk>, mailer: State<Mailer>, _: NoInput) -> Result<Shown, ActionError> {
    Ok((desk.tickets, mailer.0.to_owned(), ctx.config().general.welcome.clone()))
}

fn desk() -> App {
    App::new("desk").actions(actions![shown]).section::<Desk>("desk").state(Mailer("smtp"))
}

#[tokio::test]
async fn settings_sections_and_states_are_values() {
    let app = testing::start(desk())
        .settings(|config| config.general.welcome = "hi".into())
        .section(Desk { tickets: 7, file: String::new() })
        .state(Mailer("none"))
        .await;
    assert_eq!(app.client().get("/api/shown").await.ok().json(), json!({ "result": [7, "none", "hi"] }));
    assert_eq!(app.client().socket().await.welcome()["welcome"], "hi");
    let plain = testing::start(desk()).await;
    assert_eq!(plain.client().get("/api/shown").await.ok().json(), json!({ "result": [0, "smtp", "welcome"] }));
}

#[tokio::test]
async fn the_folder_is_there_before_the_start() {
    let start = testing::start(desk());
    let file = start.folder().join("tickets");
    std::fs::write(&file, "1").unwrap();
    let app = start.section(Desk { tickets: 1, file: file.display().to_string() }).await;
    assert_eq!(app.folder(), file.parent().unwrap());
    app.client().get("/api/shown").await.ok();
    drop(app);
    assert!(!file.exists());
}

#[tokio::test]
async fn a_value_that_the_application_does_not_have_is_refused_with_the_remedy() {
    let reason = testing::start(app()).section(Desk::default()).refused().await;
    assert!(reason.contains("Desk") && reason.contains("App::section::<"), "{reason}");
}

/// The files of the application count as in a node, those of one machine do not, nor do its variables.
#[tokio::test]
async fn the_files_of_the_application_are_read_without_those_of_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("default.toml", "[desk]\ntickets = 1\n[rooms]\nstart = [\"a\"]\n[web]\nport = 1\n"),
        ("test.toml", "[desk]\ntickets = 2\n"),
        ("local.toml", "[desk]\ntickets = 3\n"),
        ("development.toml", "[desk]\ntickets = 4\n"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let app = testing::start(desk().config_dir(folder.path())).await;
    assert_eq!(app.client().get("/api/shown").await.ok().json()["result"][0], 2);
    app.client().socket().await.join("a").await;
    assert_ne!(app.addr().port(), 1);
}

#[tokio::test]
async fn clients_use_the_paths_of_the_settings() {
    let app = testing::start(app())
        .settings(|config| {
            config.websocket.path = "/live".into();
            config.web.prefix = "/v1".into();
        })
        .await;
    let ada = app.client();
    let mut socket = ada.socket().query("a=b").await;
    assert_eq!(socket.call::<set_name>(SetName { name: "Ada".into() }).await.unwrap().name, "Ada");
    let input = Find { shop: "3".into(), tags: vec!["x".into()], most: None };
    assert_eq!(ada.call::<find>(input).await.unwrap().shop, "3");
    ada.set_cookie("user", "mallory");
    ada.socket().refused().await.refused("forbidden");
}

#[tokio::test]
async fn a_node_without_clients_says_so() {
    let app = testing::start(app()).settings(|config| config.general.roles = vec![NodeRole::Worker]).await;
    let failed = failure(async { drop(app.client()) }).await;
    assert!(failed.contains("general.roles"), "{failed}");
}
