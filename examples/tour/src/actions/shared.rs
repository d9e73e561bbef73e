//! Data that all nodes share: the cache, counters, lists.

use std::time::Duration;

use phalanx::prelude::*;
use serde_json::Value;

#[input]
pub(crate) struct Pair {
    #[validate(length(min = 3))]
    key: String,
    #[validate(length(min = 3))]
    value: String,
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct CacheTest {
    cache_test_results: Results,
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct Results {
    save_resp: bool,
    size_resp: u64,
    load_resp: Loaded,
    delete_resp: bool,
}

#[output]
#[serde(rename_all = "camelCase")]
pub(crate) struct Loaded {
    key: String,
    value: String,
    created_at: u64,
}

/// Saves a value in the cache, loads it and destroys it.
#[action(name = "cacheTest", get, post)]
pub(crate) async fn cache_test(ctx: Context, input: Pair) -> Result<CacheTest, ActionError> {
    let key = format!("cacheTest_{}", input.key);
    ctx.cache().save(&key, &input.value, Some(Duration::from_secs(5))).await?;
    let size_resp = ctx.cache().size().await?;
    let loaded = ctx.cache().load::<String>(&key).await?;
    let loaded = loaded.ok_or_else(|| ActionError::conflict("another caller destroyed the key"))?;
    let delete_resp = ctx.cache().destroy(&key).await?;
    let load_resp = Loaded { key: loaded.key, value: loaded.value, created_at: loaded.created_at };
    Ok(CacheTest { cache_test_results: Results { save_resp: true, size_resp, load_resp, delete_resp } })
}

#[input]
pub(crate) struct Name {
    name: String,
}

#[output]
pub(crate) struct Counter {
    value: i64,
}

/// Returns the value of a counter.
#[action(get = "/counters/{name}")]
pub(crate) async fn counter(ctx: Context, input: Name) -> Result<Counter, ActionError> {
    Ok(Counter { value: ctx.cache().counter(&format!("counter:{}", input.name)).await? })
}

#[output]
pub(crate) struct List {
    values: Vec<Value>,
}

/// Returns the values of a list.
#[action(get = "/lists/{name}")]
pub(crate) async fn list(ctx: Context, input: Name) -> Result<List, ActionError> {
    Ok(List { values: ctx.cache().list(&input.name, 0, 10_000).await? })
}
