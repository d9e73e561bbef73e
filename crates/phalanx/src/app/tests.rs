use phalanx_core::States;
use phalanx_core::initializer::Boot;
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
    let table = command::action_table(&app.plan(&settings.config).unwrap(), "/v1/");
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["count", "1", "GET", "/v1/count", "yes", "Counts."]);
    assert_eq!(lines[2], ["sender", "1", "GET", "/v1/sender", "yes", "Returns", "the", "sender's", "address."]);
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
