//! Hides secrets in printed settings: values whose key names a secret, and passwords in addresses.

use serde_json::Value;

use super::LIMITS;

/// Printed instead of a secret.
const HIDDEN: &str = "[HIDDEN]";

/// Hides every value whose key names a secret, and passwords in addresses.
pub(super) fn hide(settings: &mut Value) {
    let Value::Object(sections) = settings else { return };
    // The names of limits are words of the application: `api_key = "5/1m"` is no secret.
    sections.iter_mut().filter(|(name, _)| *name != LIMITS).for_each(|(name, section)| hide_field(name, section));
}

fn hide_field(name: &str, value: &mut Value) {
    let is_empty = value.as_str() == Some("") || value.is_null();
    if is_secret(name) && !is_empty {
        *value = HIDDEN.into();
        return;
    }
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(name, value)| hide_field(name, value)),
        Value::Array(items) => items.iter_mut().for_each(|item| hide_field("", item)),
        Value::String(text) => *text = without_password(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a name means a secret, however its words are joined. It errs on the safe side.
fn is_secret(name: &str) -> bool {
    let characters = name.chars().filter(char::is_ascii_alphanumeric);
    let name: String = characters.map(|character| character.to_ascii_lowercase()).collect();
    let anywhere = ["secret", "token", "passw", "passphrase", "credential", "apikey"];
    let at_the_end = ["key", "keys", "pwd", "pass", "auth", "dsn"];
    let matches = anywhere.iter().any(|word| name.contains(word)) || at_the_end.iter().any(|word| name.ends_with(word));
    matches && name != "secretparams" // a list of names, not of secrets
}

/// Turns `redis://user:word@host?password=word` into `redis://user:***@host?password=***`.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let login = rest.rsplit_once('@').and_then(|(login, host)| Some((login.split_once(':')?.0, host)));
    let (mut shown, rest) = match login {
        Some((user, host)) => (format!("{scheme}://{user}:***@"), host),
        None => (format!("{scheme}://"), rest),
    };
    let (host, query) = rest.split_once('?').map_or((rest, None), |(host, query)| (host, Some(query)));
    shown.push_str(host);
    for (position, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if position == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => shown.extend([name, "=***"]),
            _ => shown.push_str(pair),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_recognised_however_their_words_are_joined() {
        for name in [
            "password",
            "passwd",
            "db_pwd",
            "smtpPass",
            "api_key",
            "apiKey",
            "signing-key",
            "private_keys",
            "token",
            "server_token",
            "clientSecret",
            "aws_credentials",
            "basic_auth",
            "sentry_dsn",
            "passphrase",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["secret_params", "port", "author", "monkeys_max", "keyboard", "bypass_rate"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn names_of_limits_are_no_secrets_and_those_of_other_sections_are() {
        let mut settings = serde_json::json!({
            "limits": { "api_key": "5/1m" },
            "payments": { "limits": { "api_key": "abc" }, "urls": ["redis://me:word@host"], "none": null },
        });
        hide(&mut settings);
        let payments = &settings["payments"];
        assert_eq!(settings["limits"]["api_key"], "5/1m");
        assert_eq!(
            (&payments["limits"]["api_key"], &payments["urls"][0]),
            (&HIDDEN.into(), &"redis://me:***@host".into())
        );
    }

    #[test]
    fn passwords_in_addresses_are_hidden_at_any_position() {
        for (url, shown) in [
            ("redis://me:hunter2@host:1/0", "redis://me:***@host:1/0"),
            ("redis://:hunter2@host", "redis://:***@host"),
            ("amqp://me:p@s?s@host", "amqp://me:***@host"),
            ("postgres://host/db?user=me&password=hunter2&tls=on", "postgres://host/db?user=me&password=***&tls=on"),
            ("redis://a:one@h1,redis://b:two@h2", "redis://a:***@h2"),
            ("https://host:80/path", "https://host:80/path"),
            ("https://host/?", "https://host/?"),
            ("no address", "no address"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
