use phalanx_core::initializer::Boot;
use phalanx_core::{Action, States};
use serde::Deserialize;

use super::*;
use crate::BoxError;
use crate::prelude::*;

#[derive(Default, Serialize, Deserialize)]
struct MailSettings {
    from: String,
}

struct Counter;

/// An initializer that adds a state and an action.
struct Counting;

#[async_trait]
impl Initializer for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    async fn initialize(&self, boot: &mut Boot<'_>) -> Result<(), BoxError> {
        boot.definitions.states.insert(Counter);
        boot.definitions.actions.extend(actions![count]);
        Ok(())
    }
}

/// Returns the sender's address.
#[action(get = "/sender")]
async fn sender(_ctx: Context, mail: State<MailSettings>, _: NoInput) -> Result<String, ActionError> {
    Ok(mail.from.clone())
}

/// Counts.
#[action(get)]
async fn count(_ctx: Context, _counter: State<Counter>, _: NoInput) -> Result<(), ActionError> {
    Ok(())
}

#[test]
fn the_table_of_actions_covers_sections_initializers_and_the_prefix() {
    let mut app = App::new("post").section::<MailSettings>("mail").initializer(Counting).actions(actions![sender]);
    let mut config = Config::default();
    config.web.prefix = "/v1/".into();
    let settings = Settings::of(config, &app.sections, &mut app.definitions.states).unwrap();
    let table = command::action_table(&app.plan(&settings.config).unwrap(), &settings.config);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["count", "1", "GET", "/v1/count", "yes", "-", "-", "-", "-", "Counts."]);
    let sender =
        ["sender", "1", "GET", "/v1/sender", "yes", "-", "-", "-", "-", "Returns", "the", "sender's", "address."];
    assert_eq!(lines[2], sender);
}

#[test]
fn a_failed_boot_reports_the_whole_chain_of_errors() {
    struct Broken;

    #[async_trait]
    impl Initializer for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }

        async fn initialize(&self, _: &mut Boot<'_>) -> Result<(), BoxError> {
            Err(SettingsUnread(std::io::Error::other("no such disk")).into())
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("the file cannot be read")]
    struct SettingsUnread(#[source] std::io::Error);

    let error = App::new("post").initializer(Broken).plan(&Config::default()).unwrap_err();
    assert_eq!(Chain(&*error).to_string(), "initializer broken: the file cannot be read: no such disk");
}

#[test]
fn the_interop_channel_must_differ_from_the_clusters_own() {
    let mut config = Config::default();
    config.cluster.interop = true;
    config.cluster.interop_token = "actionhero-token".into();
    let mut settings = Settings::of(config, &[], &mut States::default()).unwrap();
    settings.redis_url = Some("redis://127.0.0.1:1".into());
    let error = backend("actionhero", &settings, phalanx_cluster::backend).unwrap_err().to_string();
    assert!(error.contains("cluster.interop_channel"), "{error}");
}

#[input]
struct Named {
    name: String,
}

/// Has the path of a folder and one of its own.
#[action(get = "/{name}/files")]
async fn files_of(_ctx: Context, input: Named) -> Result<String, ActionError> {
    Ok(input.name)
}

#[test]
fn a_check_finds_what_ends_a_boot() {
    let check = |app: App, config: Config, redis_url: Option<&str>| {
        let mut settings = Settings::of(config, &[], &mut States::default()).unwrap();
        settings.redis_url = redis_url.map(str::to_owned);
        app.version("1.2.3").checked(settings)
    };
    let app = || App::new("post").actions(actions![files_of]);
    let nowhere = Some("redis://127.0.0.1:1"); // it is not reached
    assert_eq!(check(app(), Config::default(), nowhere), Ok("post 1.2.3, environment test: 1 actions, 0 tasks".into()));

    let mut config = Config::default();
    config.admin.bind = "here".into();
    let errors = check(app(), config, None).unwrap_err();
    assert!(errors.len() == 1 && errors[0].starts_with("admin.bind \"here\" is no address"), "{errors:?}");

    let mut config = Config::default();
    config.log.level = "phalanx=loud".into();
    config.paths.pid = "/dev/null/pids".into();
    config.paths.public = vec!["/nowhere".into()];
    let errors = check(app().actions(actions![count]), config, Some("rediss://host:port")).unwrap_err();
    assert_eq!(errors.len(), 5, "{errors:?}");
    let parts = ["log.level", "paths.pid: /dev/null is no folder", "paths.public: /nowhere", "REDIS_URL", "Counter"];
    for (error, part) in errors.iter().zip(parts) {
        assert!(error.contains(part), "{part}: {error}");
    }

    let twice = app().cross_site("/api/a/files");
    let errors = check(twice, Config::default(), None).unwrap_err();
    assert!(errors.len() == 1 && errors[0].contains("an action has this path"), "{errors:?}");
    let mut large = files_of::DEF;
    large.body.max_body = Some(u64::MAX);
    let errors = check(App::new("post").actions([large]), Config::default(), None).unwrap_err();
    assert!(errors.len() == 1 && errors[0].contains("max_body is more than"), "{errors:?}");
}
