use std::time::Duration;

use phalanx_core::config::{ByteSize, TrustedHeader, duration};
use serde::{Deserialize, Serialize};

use super::variables::collect_leaves;
use super::*;

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Mail {
    server: String,
    password: String,
    retries: u32,
    #[serde(with = "duration")]
    timeout: Duration,
    max_attachment: ByteSize,
    copies: Vec<String>,
    from: Option<String>,
    headers: BTreeMap<String, String>,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            server: "localhost".into(),
            password: String::new(),
            retries: 3,
            timeout: Duration::from_secs(5),
            max_attachment: ByteSize::kib(100),
            copies: Vec::new(),
            from: None,
            headers: BTreeMap::new(),
        }
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
    load_with_mail(files, variables).map(|(settings, _)| settings)
}

fn load_with_mail(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<(Settings, Mail), SettingsError> {
    let (_folder, sources) = sources(files, variables);
    let mut states = States::default();
    let settings = Settings::load(&sources, &[Section::of::<Mail>("mail")], &mut states)?;
    Ok((settings, Mail::clone(&states.get::<Mail>().unwrap())))
}

fn leaves(known: &Value) -> Vec<String> {
    let mut leaves = Vec::new();
    collect_leaves(known, "", &mut leaves);
    leaves.into_iter().map(|(path, _)| path).collect()
}

#[test]
fn without_files_or_variables_the_defaults_apply() {
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
fn variables_are_parsed_by_the_type_of_their_setting() {
    let variables = [
        ("PHALANX__WEBSOCKET__HEARTBEAT", "250ms"),
        ("PHALANX__WEB__MAX_BODY", "2MiB"),
        ("PHALANX__WEB__METADATA", "false"),
        ("PHALANX__ROOMS__START", "lobby, den ,"),
        ("PHALANX__TASKS__QUEUES", "urgent, mail weight=3, *"),
        ("PHALANX__GENERAL__ID", "0123"),
        ("BIND", "127.0.0.1"),
        ("ALLOWED_HOSTS", "https://a.example,http://b.example:8080"),
        ("PHALANX__WEB__TRUSTED_PROXIES", "10.0.0.1"),
        ("PHALANX__WEB__TRUSTED_HEADERS", "X-Forwarded-Proto,forwarded"),
    ];
    let settings = load(&[], &variables).unwrap();
    assert_eq!(settings.config.websocket.heartbeat, Duration::from_millis(250));
    assert_eq!(settings.config.web.max_body, ByteSize::mib(2));
    assert_eq!(settings.config.web.metadata, Some(false));
    assert_eq!(settings.config.rooms.start, ["lobby", "den"]);
    assert_eq!(settings.config.tasks.queues, ["urgent", "mail weight=3", "*"]);
    let named = [TrustedHeader::XForwardedProto, TrustedHeader::Forwarded];
    assert_eq!(settings.config.web.trusted_headers, named);
    assert_eq!(settings.config.web.allowed_hosts, ["https://a.example", "http://b.example:8080"]);
    assert_eq!(settings.node_id, "0123");
    assert_eq!(settings.config.web.bind.to_string(), "127.0.0.1");
}

#[test]
fn sections_of_an_application_follow_the_rules_of_the_frameworks_own() {
    let (_, mail) = load_with_mail(&[], &[]).unwrap();
    assert_eq!(mail, Mail::default());
    let file = "[mail]\nretries = 9\ntimeout = \"2m\"\nfrom = \"me\"\n[mail.headers]\nX-Any = \"1\"";
    let variables = [
        ("PHALANX__MAIL__PASSWORD", "1e5"),
        ("PHALANX__MAIL__RETRIES", "7"),
        ("PHALANX__MAIL__TIMEOUT", "250ms"),
        ("PHALANX__MAIL__MAXATTACHMENT", "2MiB"),
        ("PHALANX__MAIL__COPIES", "a, b"),
    ];
    let (settings, mail) = load_with_mail(&[("default.toml", file)], &variables).unwrap();
    let expected = Mail {
        server: "localhost".into(),
        password: "1e5".into(),
        retries: 7,
        timeout: Duration::from_millis(250),
        max_attachment: ByteSize::mib(2),
        copies: vec!["a".into(), "b".into()],
        from: Some("me".into()),
        headers: BTreeMap::from([("X-Any".into(), "1".into())]),
    };
    assert_eq!(mail, expected);
    let printed = settings.to_toml();
    assert!(printed.contains("retries = 7") && printed.contains("timeout = \"250ms\""), "{printed}");
    assert!(printed.contains("maxAttachment = \"2MiB\""), "{printed}");
}

#[test]
fn two_sections_must_not_have_the_same_name() {
    let (_folder, sources) = sources(&[], &[]);
    for sections in [vec![Section::of::<Mail>("web")], vec![Section::of::<Mail>("mail"), Section::of::<Mail>("mail")]] {
        let error = Settings::load(&sources, &sections, &mut States::default()).unwrap_err();
        assert!(error.to_string().contains("has the name of another"), "{error}");
    }
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
        ("[websocket]\nheartbeat = 5", None, "websocket.heartbeat"),
        ("", Some(("PHALANX__WEBSOCKET__HEARTBEAT", "5")), "websocket.heartbeat"),
        ("[web]\nmax_body = 1024", None, "web.max_body"),
        ("", Some(("PHALANX__WEB__MAX_BODY", "1024")), "\"1024\" is no size"),
        ("[mail]\nretries = \"many\"", None, "mail.retries"),
        ("[mail]\ntimeout = 5", None, "mail.timeout"),
        ("[mail]\nmaxAttachment = \"5\"", None, "mail.maxAttachment"),
        ("", Some(("PORT", "70000")), "web.port"),
        ("", Some(("BIND", "example.org")), "web.bind: \"example.org\" is no address to listen on"),
        ("[web]\nprefix = \"api\"", None, "web.prefix"),
        ("[websocket]\noutbox_frames = 0", None, "websocket.outbox_frames"),
        ("[websocket]\nheartbeat = \"0s\"", None, "websocket.heartbeat"),
        ("[rooms]\nmax_message = \"1MiB\"", None, "rooms.max_message"),
        ("[websocket]\npath = \"/phalanx-client.js\"", None, "websocket.path"),
        ("[tasks]\nqueues = []", None, "tasks.queues"),
        ("", Some(("PHALANX__TASKS__QUEUES", "mail weight=0, *")), "tasks.queues: \"mail weight=0\": weight is from 1"),
        ("[web]\ncors_origins = [\"app.example\"]", None, "web.cors_origins"),
        ("[web]\ncors_origins = [\"https://app.example/\"]", None, "web.cors_origins"),
        ("[web]\ncors_origins = [\"null\"]", None, "web.cors_origins"),
        ("[web]\ncors_origins = [\"https://*.example\"]", None, "web.cors_origins"),
        ("[web]\ncors_origins = [\"wss://app.example\"]", None, "web.cors_origins"),
        ("[websocket]\nallowed_origins = [\"null\"]", None, "websocket.allowed_origins"),
        ("[websocket]\nallowed_origins = [\"app.example\"]", None, "websocket.allowed_origins"),
        ("[websocket]\nallowed_origins = [\"https://app.example:0\"]", None, "websocket.allowed_origins"),
        ("[web]\nallowed_hosts = [\"capacitor://localhost\"]", None, "web.allowed_hosts"),
        ("[web]\nallowed_hosts = [\"https://a.example\"]", None, "no request can be known to use https"),
        ("[web]\nallowed_hosts = [\"http://a.example\"]\ntls_in_front = true", None, "all requests use https"),
        (
            "[web]\nallowed_hosts = [\"https://a.example\"]\ntrusted_proxies = [\"10.0.0.1\"]\ntrusted_headers = []",
            None,
            "no request can be known to use https",
        ),
        ("[web]\ntrusted_headers = [\"x-forwarded-by\"]", None, "web.trusted_headers"),
        ("[web]\ntrusted_proxies = [\"::ffff:10.0.0.0/90\"]", None, "web.trusted_proxies"),
        ("[web]\ncross_site = \"allow\"", None, "web.cross_site"),
        ("[web]\nmax_header_bytes = \"4KiB\"", None, "web.max_header_bytes"),
        ("[web]\nmax_headers = 0", None, "web.max_headers"),
        ("[web]\nmax_files = 0", None, "web.max_files"),
        ("[web]\nmax_files = 9223372036854775807", None, "web.max_files"),
        ("[web]\nmax_uploads_total = \"1MiB\"", None, "web.max_uploads_total"),
        ("", Some(("ALLOWED_HOSTS", "https://a.example, b.example")), "web.allowed_hosts"),
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
    assert!(Settings::load(&named, &[], &mut States::default()).unwrap_err().to_string().contains("/nowhere/at/all"));
    let unnamed = Sources { default_dir: "/nowhere/at/all".into(), ..Sources::default() };
    assert!(Settings::load(&unnamed, &[], &mut States::default()).is_ok());
    let error = load(&[("default.toml", "[paths]\nuploads = \"/nowhere/at/all\"")], &[]).unwrap_err().to_string();
    assert_eq!(error, "paths.uploads: /nowhere/at/all does not exist");
}

#[test]
fn the_settings_are_printed_without_secrets() {
    let variables = [("PHALANX__MAIL__PASSWORD", "hunter2"), ("REDIS_URL", "redis://me:hunter2@host:1/0")];
    let text = load(&[], &variables).unwrap().to_toml();
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("password = \"[HIDDEN]\"") && text.contains("redis://me:***@host:1/0"), "{text}");
    assert!(text.contains("heartbeat = \"30s\"") && text.contains("max_body = \"1MiB\""), "{text}");
}

#[test]
fn default_toml_lists_every_setting_with_its_compiled_default() {
    let text = include_str!("../../../../config/default.toml");
    let settings = load(&[("default.toml", text)], &[]).unwrap();
    assert_eq!(settings.config, Config::default());
    let table = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
    let known = serde_json::to_value(Config::default()).unwrap();
    for leaf in leaves(&known).into_iter().filter(|leaf| leaf != "web.metadata") {
        assert!(table.pointer(&format!("/{}", leaf.replace('.', "/"))).is_some(), "{leaf} is missing");
    }
}

#[test]
fn a_title_becomes_a_file_name_without_separators() {
    let stem = |title| load(&[], &[("PHALANX_TITLE", title)]).unwrap().file_stem();
    assert_eq!(stem("web-1.eu"), "web-1.eu");
    assert_eq!(stem("10.0.0.1:80 a"), "10.0.0.1-80_a");
    assert_eq!(stem("../../etc/x"), ".._.._etc_x");
}

#[test]
fn each_value_has_its_last_source_and_secrets_are_hidden() {
    let files = [
        (
            "default.toml",
            "[web]\nport = 1\nprefix = \"/a\"\n[mail]\npassword = \"hunter2\"\nheaders = { a = \"b\", \"x/y\" = \"z\" }",
        ),
        ("local.toml", "[web]\nport = 3\n[general]\nid = \"mine\""),
    ];
    let variables = [
        ("PORT", "5"),
        ("PHALANX__MAIL__COPIES", "a,b"),
        ("PHALANX_ENV", "test"),
        ("REDIS_URL", "redis://:hunter2@host"),
    ];
    let (folder, mut sources) = sources(&files, &variables);
    let sections = [Section::of::<Mail>("mail")];
    let origins = |settings: &Settings| -> BTreeMap<String, (String, String)> {
        let all = settings.with_origins().into_iter();
        all.map(|setting| (setting.path, (setting.value, setting.origin))).collect()
    };
    let mut settings = Settings::load(&sources, &sections, &mut States::default()).unwrap();
    settings.change(|config| config.web.max_requests = 7).unwrap();
    let all = origins(&settings);
    let file = |name: &str| folder.path().join(name).display().to_string();
    let check = |path: &str, value: &str, origin: &str| {
        assert_eq!(all.get(path), Some(&(value.to_owned(), origin.to_owned())), "{path}");
    };
    check("web.port", "5", "PORT");
    check("web.prefix", "/a", &file("default.toml"));
    check("web.bind", "0.0.0.0", "default");
    check("web.max_requests", "7", "application");
    check("mail.password", "[HIDDEN]", &file("default.toml"));
    check("mail.headers.a", "b", &file("default.toml"));
    check("mail.headers.x/y", "z", &file("default.toml"));
    check("mail.copies", "[\"a\",\"b\"]", "PHALANX__MAIL__COPIES");
    check("mail.retries", "3", "default");
    check("environment", "test", "PHALANX_ENV");
    check("node", "mine", &file("local.toml"));
    check("REDIS_URL", "redis://:***@host", "REDIS_URL");
    sources.environment = Some("production".into());
    sources.title = Some("other".into());
    let all = origins(&Settings::load(&sources, &sections, &mut States::default()).unwrap());
    assert_eq!(all["environment"], ("production".to_owned(), "--env".to_owned()));
    assert_eq!(all["node"], ("other".to_owned(), "--title".to_owned()));
}

#[test]
fn limits_have_the_names_of_the_application_in_files_and_variables() {
    let file = "[limits]\nipv6_prefix = 56\nsignIn = \"1/1s\"\nreset_password = \"10/1m\"\nsearch = \"5/1h\"";
    let variables = [("PHALANX__LIMITS__SEARCH", "0"), ("PHALANX__LIMITS__MAX_SUBJECTS", "10")];
    let settings = load(&[("default.toml", file)], &variables).unwrap();
    let limits = &settings.config.limits;
    let named: Vec<_> = limits.named.iter().map(|(name, set)| (name.as_str(), String::from(*set))).collect();
    let expected = [("reset_password", "10/1m"), ("search", "0"), ("signIn", "1/1s")];
    assert_eq!(named, expected.map(|(name, set)| (name, set.to_owned())));
    assert_eq!((limits.ipv6_prefix, limits.max_subjects), (56, 10));
    assert!(settings.to_toml().contains("reset_password = \"10/1m\""), "a limit is no secret, whatever its name");
    for (wrong, part) in [
        ("sign_in = \"0/1m\"", "limits.sign_in"),
        ("sign_in = \"10\"", "is no limit"),
        ("ipv6_prefx = 56", "limits.ipv6_prefx"),
        ("ipv6_prefix = 0", "must be from 1 to 128"),
    ] {
        let error = load(&[("default.toml", &format!("[limits]\n{wrong}"))], &[]).unwrap_err().to_string();
        assert!(error.contains(part), "{wrong}: {error}");
    }
}
