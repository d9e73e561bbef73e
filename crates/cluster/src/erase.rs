//! The end of a cluster that a test had for itself: nothing of it stays in Redis.

use std::error::Error;

use deadpool_redis::redis::cmd;
use phalanx_core::config::Config;

use crate::keys::prefix_pattern;

/// Keys that Redis looks at in one step of a scan.
const SCAN_COUNT: usize = 1000;

/// Deletes every key that begins with one of the prefixes of a cluster: `phalanx:<cluster>:`, `redis.prefix` and
/// `tasks.prefix`. Returns how many there were. Meant for clusters whose prefixes are theirs alone, once their nodes have
/// stopped. Must be called in a runtime.
///
/// # Errors
///
/// A setting does not begin with `<cluster>:`, so others may have such keys: nothing is deleted. The address is invalid, or
/// Redis does not answer a command within `redis.command_timeout`: then some keys are left.
pub async fn erase(url: &str, cluster: &str, config: &Config) -> Result<usize, Box<dyn Error + Send + Sync>> {
    let own = format!("{cluster}:");
    for (setting, prefix) in [("redis.prefix", &config.redis.prefix), ("tasks.prefix", &config.tasks.prefix)] {
        if !prefix.starts_with(&own) {
            return Err(format!("{setting} is {prefix:?} and does not begin with {own:?}: others may use it").into());
        }
    }
    let (client, keys) = crate::open(url, cluster, config)?;
    let mut erased = 0;
    for prefix in keys.prefixes() {
        let (mut cursor, pattern) = ("0".to_owned(), prefix_pattern(prefix));
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(SCAN_COUNT);
            let (next, found): (String, Vec<Vec<u8>>) = client.read(prefix, &scan).await?;
            if !found.is_empty() {
                erased += client.read::<usize>(prefix, cmd("DEL").arg(found)).await?;
            }
            if next == "0" {
                break;
            }
            cursor = next;
        }
    }
    Ok(erased)
}
