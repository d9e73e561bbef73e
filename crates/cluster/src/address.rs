//! Checks the address of a Redis for mistakes that the client library reports in words of its own, or not at all.

use std::error::Error;

/// The schemes of addresses with a host.
const HOSTS: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];

/// The schemes of Unix sockets.
const SOCKETS: [&str; 3] = ["unix", "redis+unix", "valkey+unix"];

/// Checks an address. No message contains a part of it that may be a secret.
pub(crate) fn check(url: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (scheme, rest) = url.trim().split_once("://").unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    if SOCKETS.contains(&scheme.as_str()) {
        return Ok(());
    }
    if !HOSTS.contains(&scheme.as_str()) {
        return Err("it has the form redis://user:password@host:port/database, or rediss://… for TLS".into());
    }
    // The host begins after the last `@`, and ends the part in which one may stand. A `/`, `#` or `?` before it ends that
    // part too early: then the password is taken for a port, a database or a comment.
    let end = rest.find(['/', '#', '?']).unwrap_or(rest.len());
    let after = &rest[end..];
    if after.contains('@') {
        return Err(
            "the user or the password contains `/`, `#` or `?`: percent-encode the password (`/` as %2F, `#` as \
                    %23, `?` as %3F)"
                .into(),
        );
    }
    let (path, fragment) = after.split_once('#').map_or((after, None), |(path, fragment)| (path, Some(fragment)));
    if let Some(fragment) = fragment {
        let problem = match fragment {
            "insecure" => {
                "`#insecure` is not supported: the certificate of Redis is always verified. If its authority \
                           is a private one, name a file with its certificate in SSL_CERT_FILE"
            }
            _ => "it ends with a `#` and a text, which means nothing here; in a password `#` is written as %23",
        };
        return Err(problem.into());
    }
    let database = path.split('?').next().unwrap_or_default().trim_matches('/');
    if !database.is_empty() && database.parse::<u32>().is_err() {
        return Err(
            "the path after the host is no database number, such as /0; in a password `/` is written as %2F".into()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_work_are_accepted() {
        for url in [
            "redis://localhost",
            "redis://127.0.0.1:6379/",
            "REDIS://localhost:6379/1",
            "rediss://user:pass%2Fword@host:6380/0",
            "redis://:p@ss:w%23rd@[::1]:6379/0?protocol=resp3",
            "redis://host?protocol=resp3",
            "valkeys://host",
            "unix:///run/redis@1/redis.sock?db=1&pass=a",
        ] {
            assert!(check(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn mistakes_are_named_without_the_password() {
        for (url, words) in [
            ("redis://:hunter/2@host:6379", "percent-encode the password"),
            ("redis://me:hunter#2@host", "percent-encode the password"),
            ("redis://me:hunter?2@host", "percent-encode the password"),
            ("redis://me:12#hunter2@host", "percent-encode the password"),
            ("rediss://me:hunter//#?2@host/0", "percent-encode the password"),
            ("rediss://me:hunter2@host/0#insecure", "`#insecure` is not supported"),
            ("rediss://host#insecure", "`#insecure` is not supported"),
            ("rediss://host/0#hunter2", "written as %23"),
            ("redis://host/hunter2", "no database number"),
            ("redis://host/-1", "no database number"),
            ("http://me:hunter2@host", "redis://user:password@host"),
            ("host:6379", "redis://user:password@host"),
            ("", "redis://user:password@host"),
        ] {
            let error = check(url).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("hunter"), "{url}: {error}");
        }
    }
}
