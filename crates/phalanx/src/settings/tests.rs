use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
struct Mail {
    server: String,
    password: String,
    retries: u32,
}

impl Default for Mail {
    fn default() -> Self {
        Self { server: "localhost".into(), password: String::new(), retries: 3 }
    }
}

/// A folder with these files, and these variables.
fn sources(files: &[(&str, &str)], variables: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let sources = Sources { variables, default_dir: folder.path().to_owned(), ..Sources::default() };
    (folder, sources)
}

fn load(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let (_folder, sources) = sources(files, variables);
    Settings::load(&sources, &[Section::of::<Mail>("mail")])
}

#[test]
fn without_anything_the_defaults_stand() {
    let settings = load(&[], &[]).unwrap();
    assert_eq!(settings.config, Config::default());
    assert!(settings.environment.is_development());
    assert!(settings.node_id.ends_with(&format!("-{}", std::process::id())));
}

#[test]
fn each_layer_wins_over_the_one_before() {
    let files = [
        ("default.toml", "[web]\nport = 1\nprefix = \"/a\"\n[general]\ngrace = \"1s\"\nid = \"file\""),
        ("production.toml", "[web]\nport = 2\nprefix = \"/b\""),
        ("local.toml", "[web]\nport = 3"),
        ("test.toml", "[web]\nport = 99"),
    ];
    let port = |variables: &[(&str, &str)]| {
        let settings = load(&files, &[&[("PHALANX_ENV", "production")], variables].concat()).unwrap();
        (settings.config.web.port, settings.config.web.prefix, settings.config.general.grace, settings.node_id)
    };
    let second = Duration::from_secs(1);
    assert_eq!(port(&[]), (3, "/b".into(), second, "file".into()));
    assert_eq!(port(&[("PHALANX__WEB__PORT", "4")]).0, 4);
    assert_eq!(port(&[("PHALANX__WEB__PORT", "4"), ("PORT", "5")]).0, 5);
    assert_eq!(port(&[("PHALANX_TITLE", "titled")]).3, "titled");
}

#[test]
fn variables_are_read_by_the_type_in_their_place() {
    let variables = [
        ("PHALANX__WEBSOCKET__HEARTBEAT", "250ms"),
        ("PHALANX__WEB__MAX_BODY", "2MiB"),
        ("PHALANX__WEB__METADATA", "false"),
        ("PHALANX__ROOMS__START", "lobby, den ,"),
        ("PHALANX__GENERAL__ID", "0123"),
        ("PHALANX__MAIL__PASSWORD", "1e5"),
        ("PHALANX__MAIL__RETRIES", "7"),
        ("BIND", "127.0.0.1"),
    ];
    let settings = load(&[], &variables).unwrap();
    assert_eq!(settings.config.websocket.heartbeat, Duration::from_millis(250));
    assert_eq!(settings.config.web.max_body, bytesize::ByteSize::mib(2));
    assert_eq!(settings.config.web.metadata, Some(false));
    assert_eq!(settings.config.rooms.start, ["lobby", "den"]);
    assert_eq!(settings.node_id, "0123");
    assert_eq!(settings.config.web.bind.to_string(), "127.0.0.1");
    let mut states = States::default();
    Section::of::<Mail>("mail").insert(&settings, &mut states).unwrap();
    let expected = Mail { server: "localhost".into(), password: "1e5".into(), retries: 7 };
    assert_eq!(*states.get::<Mail>().unwrap(), expected);
}

#[test]
fn unknown_keys_are_refused_all_at_once_with_the_nearest_name() {
    let files = [("default.toml", "[web]\nprot = 1\n[wbe]\nport = 2\n[mail]\nsevrer = \"x\"")];
    let error = load(&files, &[("PHALANX__WEB__MAX_BODDY", "1KiB")]).unwrap_err();
    let text = error.to_string();
    for expected in [
        "there is no setting web.prot; did you mean port?",
        "there is no setting wbe; did you mean web?",
        "there is no setting mail.sevrer; did you mean server?",
        "PHALANX__WEB__MAX_BODDY: there is no setting web.max_boddy; did you mean web.max_body?",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn wrong_values_are_refused_with_their_key() {
    for (file, variable, key) in [
        ("[web]\nport = \"many\"", None, "web.port"),
        ("[websocket]\nheartbeat = 5", None, "heartbeat"),
        ("", Some(("PORT", "70000")), "port"),
        ("[web]\nprefix = \"api\"", None, "web.prefix"),
        ("[websocket]\noutbox_frames = 0", None, "websocket.outbox_frames"),
        ("not toml", None, "default.toml"),
    ] {
        let variables: Vec<_> = variable.into_iter().collect();
        let error = load(&[("default.toml", file)], &variables).unwrap_err().to_string();
        assert!(error.contains(key), "{key} in {error}");
    }
}

#[test]
fn a_folder_that_was_named_must_exist() {
    let named = Sources { named_dir: Some("/nowhere/at/all".into()), ..Sources::default() };
    assert!(Settings::load(&named, &[]).unwrap_err().to_string().contains("/nowhere/at/all"));
    let unnamed = Sources { default_dir: "/nowhere/at/all".into(), ..Sources::default() };
    assert!(Settings::load(&unnamed, &[]).is_ok());
}

#[test]
fn the_settings_are_printed_without_secrets() {
    let variables = [("PHALANX__MAIL__PASSWORD", "hunter2"), ("REDIS_URL", "redis://me:hunter2@host:1/0")];
    let text = load(&[], &variables).unwrap().to_toml();
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("password = \"[HIDDEN]\"") && text.contains("redis://me:***@host:1/0"), "{text}");
    assert!(text.contains("heartbeat = \"30s\"") && text.contains("max_body = "), "{text}");
}

#[test]
fn the_file_of_defaults_says_every_setting_once_and_says_what_is_compiled_in() {
    let text = include_str!("../../../../config/default.toml");
    let settings = load(&[("default.toml", text)], &[]).unwrap();
    assert_eq!(settings.config, Config::default());
    let table = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
    let known = serde_json::to_value(Config::default()).unwrap();
    for leaf in leaves(&known, "").into_iter().filter(|leaf| leaf != "web.metadata") {
        assert!(table.pointer(&format!("/{}", leaf.replace('.', "/"))).is_some(), "{leaf} is missing");
    }
}
