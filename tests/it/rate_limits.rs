//! Rate limits: who is counted, when, and what a caller beyond its limit gets.

use std::time::Duration;

use phalanx::config::{Config, LimitRate, LimitSetting};
use phalanx::prelude::*;
use phalanx::testing::{self, TestClient, TestResponse};
use serde_json::{Value, json};

/// Is limited by the address, under its own name.
#[action(get, limit = "3/10s")]
async fn limited(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

fn search() -> Limit {
    Limit::named("search").per(2, MINUTE).by_header("x-api-key")
}

/// Has two limits.
#[action(get, limit = search(), limit = Limit::named("all").per(5, MINUTE).by_address())]
async fn find(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

/// Shares a limit with another action.
#[action(get, limit = search())]
async fn find_more(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

/// Calls a limited action more often than a client may.
#[action(get)]
async fn around(ctx: Context) -> Result<u32, ActionError> {
    for _ in 0..9 {
        ctx.call::<limited>(NoInput {}).await?;
    }
    Ok(9)
}

struct Member;

impl FromContext for Member {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let member = ctx.caller().headers.get("x-member").ok_or_else(|| ActionError::unauthenticated("sign in first"));
        member.map(|_| Self)
    }
}

/// Counts before its guard.
#[action(get, limit = "2/1m")]
async fn early(_ctx: Context, _member: Member, _: NoInput) -> Result<u32, ActionError> {
    Ok(1)
}

/// Counts after its guard.
#[action(get, limit = Limit::named("late").per(2, MINUTE).by_user())]
async fn late(_ctx: Context, _member: Member, _: NoInput) -> Result<u32, ActionError> {
    Ok(1)
}

/// Counts by a key of its own.
#[action(get = "/tenants/{tenant}", limit = Limit::named("tenant").per(1, MINUTE).by(|ctx| ctx.path("tenant").ok()))]
async fn of_tenant(_ctx: Context, input: Tenant) -> Result<String, ActionError> {
    Ok(input.tenant)
}

#[input]
struct Tenant {
    tenant: String,
}

fn app() -> App {
    App::new("limits")
        .actions(actions![limited, find, find_more, around, early, late, of_tenant])
        .actions(group("/shared").limit(Limit::named("shared").per(3, MINUTE)).actions(actions![one, two]))
}

/// One of a group.
#[action(get, post)]
async fn one(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

/// Another one of it, with a limit of its own.
#[action(get, limit = "1/1m")]
async fn two(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

/// The statuses of so many requests for a path.
async fn statuses(client: &TestClient, path: &str, times: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..times {
        statuses.push(client.get(path).await.status().as_u16());
    }
    statuses
}

fn header<'a>(response: &'a TestResponse, name: &str) -> &'a str {
    response.header(name).unwrap_or_default()
}

#[tokio::test]
async fn every_answer_says_how_far_the_caller_is_from_its_limit() {
    let app = testing::start(app()).await;
    let client = app.client();
    for left in [2, 1, 0] {
        let response = client.get("/api/limited").await.ok();
        assert_eq!(header(&response, "ratelimit-policy"), "\"limited\";q=3;w=10");
        assert!(header(&response, "ratelimit").starts_with(&format!("\"limited\";r={left};t=1")), "{response:?}");
        assert_eq!(response.header("retry-after"), None);
    }
    let refused = client.get("/api/limited").await.refused("rate_limited");
    assert_eq!(refused.status(), 429);
    assert_eq!(header(&refused, "ratelimit-policy"), "\"limited\";q=3;w=10");
    assert!(header(&refused, "ratelimit").starts_with("\"limited\";r=0;t=1"), "{refused:?}");
    let after: u64 = header(&refused, "retry-after").parse().unwrap();
    assert!((10..=11).contains(&after), "{after}");
    let detail = &refused.json()["error"]["details"][0];
    assert_eq!((&detail["code"], &detail["message"]), (&json!("limit"), &json!("the limit limited allows 3/10s")));
    // The socket has the same address, and no headers.
    let mut socket = client.socket().await;
    let reply = socket.request(json!({"event": "action", "params": {"action": "limited"}})).await;
    assert_eq!(reply["error"]["code"], "rate_limited");
    let after = reply["error"]["details"][0]["retryAfterMs"].as_u64().unwrap();
    assert!((9_000..=11_000).contains(&after), "{reply}");
    app.clock().advance(Duration::from_secs(11));
    assert_eq!(socket.request(json!({"event": "action", "params": {"action": "limited"}})).await["result"], 1);
    assert_eq!(client.get("/api/around").await.ok().header("ratelimit"), None, "no limit, no header");
}

#[tokio::test]
async fn of_several_limits_all_count_a_call_or_none() {
    let app = testing::start(app()).await;
    let one = app.client().with_header("x-api-key", "one");
    assert_eq!(statuses(&one, "/api/find", 4).await, [200, 200, 429, 429]);
    let refused = one.get("/api/find").await;
    assert_eq!(header(&refused, "ratelimit-policy"), "\"search\";q=2;w=60, \"all\";q=5;w=60");
    assert!(header(&refused, "ratelimit").contains("\"all\";r=3;"), "the refused calls did not count: {refused:?}");
    assert_eq!(statuses(&one, "/api/find_more", 1).await, [429], "the limit is the same");
    let two = app.client().with_header("x-api-key", "two");
    assert_eq!(statuses(&two, "/api/find", 3).await, [200, 200, 429]);
    let three = app.client().with_header("x-api-key", "three");
    assert_eq!(statuses(&three, "/api/find", 2).await, [200, 429], "the address has made five calls");
    // Without the header, and over a socket, the address is counted.
    assert_eq!(statuses(&app.client(), "/api/find_more", 3).await, [200, 200, 429]);
}

#[tokio::test]
async fn the_actions_of_a_group_share_its_limit() {
    let app = testing::start(app()).await;
    let client = app.client();
    let two = client.get("/api/shared/two").await.ok();
    assert_eq!(header(&two, "ratelimit-policy"), "\"shared\";q=3;w=60, \"two\";q=1;w=60");
    assert_eq!(statuses(&client, "/api/shared/two", 2).await, [429, 429]);
    assert_eq!(statuses(&client, "/api/shared/one", 3).await, [200, 200, 429]);
}

#[tokio::test]
async fn addresses_count_before_guards_and_users_after_them() {
    let app = testing::start(app()).await;
    let (guest, member) = (app.client(), app.client().with_header("x-member", "ada"));
    assert_eq!(statuses(&guest, "/api/early", 3).await, [401, 401, 429]);
    assert_eq!(statuses(&guest, "/api/late", 3).await, [401, 401, 401], "a guest does not use the limit up");
    assert_eq!(statuses(&member, "/api/late", 3).await, [200, 200, 429]);
}

#[tokio::test]
async fn an_application_counts_by_a_key_of_its_own() {
    let app = testing::start(app()).await;
    let client = app.client();
    for tenant in ["a", "b"] {
        assert_eq!(statuses(&client, &format!("/api/tenants/{tenant}"), 2).await, [200, 429], "{tenant}");
    }
    let mut socket = client.socket().await;
    for (tenant, code) in [("a", json!("rate_limited")), ("c", Value::Null)] {
        let params = json!({"action": "of_tenant", "tenant": tenant});
        let reply = socket.request(json!({"event": "action", "params": params})).await;
        assert_eq!(reply["error"]["code"], code, "{tenant}");
    }
}

/// Has a key that fails on some calls.
#[action(get, limit = Limit::named("odd").per(1, MINUTE).by(odd_key))]
async fn odd(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

fn odd_key(ctx: &Context) -> Option<String> {
    let key = ctx.caller().headers.get("x-odd")?.to_str().ok()?;
    assert_ne!(key, "panic", "a key, on purpose");
    Some(key.to_owned())
}

#[tokio::test]
async fn a_key_that_panics_fails_its_own_call_and_counts_nothing() {
    let app = testing::start(App::new("limits").actions(actions![odd])).await;
    for (key, status) in [("panic", 500), ("a", 200), ("panic", 500), ("a", 429), ("b", 200), ("panic", 500)] {
        assert_eq!(app.client().with_header("x-odd", key).get("/api/odd").await.status(), status, "{key}");
    }
    assert_eq!(app.take_panics().len(), 3);
}

#[tokio::test]
async fn long_keys_count_by_all_of_their_bytes_and_an_empty_one_is_none() {
    let app = testing::start(app()).await;
    let long = |last: &str| app.client().with_header("x-api-key", &format!("{}{last}", "k".repeat(8000)));
    assert_eq!(statuses(&long("1"), "/api/find_more", 3).await, [200, 200, 429]);
    assert_eq!(statuses(&long("2"), "/api/find_more", 3).await, [200, 200, 429]);
    let empty = app.client().with_header("x-api-key", "");
    assert_eq!(statuses(&empty, "/api/find_more", 2).await, [200, 200]);
    assert_eq!(statuses(&app.client(), "/api/find_more", 1).await, [429], "both count by their address");
}

#[tokio::test]
async fn a_forwarded_address_that_is_none_counts_as_the_proxy() {
    let behind = |config: &mut Config| config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let app = testing::start(app()).settings(behind).await;
    let mut statuses = Vec::new();
    for forwarded in ["unknown", "", "192.0.2.300", "192.0.2.1, nonsense", "[2001:db8::1", "a:192.0.2.1"] {
        let client = app.client().with_header("x-forwarded-for", forwarded);
        statuses.push(client.get("/api/limited").await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429, 429], "no such text is a client of its own");
    // A client cannot be another one by what it sends itself: the proxy appends.
    for (forwarded, status) in
        [("192.0.2.8, 192.0.2.7", 200), ("192.0.2.9, 192.0.2.7", 200), ("192.0.2.7", 200), ("x, 192.0.2.7", 429)]
    {
        let client = app.client().with_header("x-forwarded-for", forwarded);
        assert_eq!(client.get("/api/limited").await.status(), status, "{forwarded}");
    }
}

#[tokio::test]
async fn calls_of_other_actions_do_not_count() {
    let app = testing::start(app()).await;
    let client = app.client();
    assert_eq!(client.get("/api/around").await.ok().json()["result"], 9);
    assert_eq!(statuses(&client, "/api/limited", 4).await, [200, 200, 200, 429]);
}

#[tokio::test]
async fn all_addresses_of_a_network_count_as_one() {
    let behind = |config: &mut Config| config.web.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let app = testing::start(app()).settings(behind).await;
    let mut ok = 0;
    for host in 0..200_u32 {
        let client = app.client().with_header("x-forwarded-for", &format!("2001:db8:0:1::{host:x}"));
        ok += usize::from(client.get("/api/limited").await.status() == 200);
    }
    assert_eq!(ok, 3);
    for (address, status) in [
        ("2001:db8:0:2::1", 200),
        ("192.0.2.1", 200),
        ("::ffff:192.0.2.1", 200),
        ("64:ff9b::192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
    ] {
        let client = app.client().with_header("x-forwarded-for", address);
        assert_eq!(client.get("/api/limited").await.status(), status, "{address}");
    }
}

#[tokio::test]
async fn a_setting_changes_a_limit_or_turns_it_off() {
    let set = |config: &mut Config| {
        let settings = [("limited", "1/1h"), ("search", "0"), ("all", "0")];
        let named = settings.map(|(name, text)| (name.to_owned(), text.parse::<LimitSetting>().unwrap()));
        config.limits.named.extend(named);
    };
    let app = testing::start(app()).settings(set).await;
    let client = app.client();
    assert_eq!(statuses(&client, "/api/limited", 2).await, [200, 429]);
    assert_eq!(statuses(&client, "/api/find", 9).await, [200; 9]);
    assert_eq!(client.get("/api/find").await.header("ratelimit-policy"), None);
}

#[tokio::test]
async fn a_boot_refuses_limits_that_cannot_be() {
    let check = async |limit: Limit, expected: &str| {
        let app = App::new("limits").actions(group("").limit(limit).actions(actions![one]));
        let reason = testing::start(app).refused().await;
        assert!(reason.contains(expected), "{reason}");
    };
    check(Limit::named("a").per(0, MINUTE), "turns it off").await;
    check(Limit::named("a").per(1, Duration::ZERO), "turns it off").await;
    check(Limit::named("a").per(1, Duration::from_millis(1)), "from 100ms to 366 days").await;
    check(Limit::named("a b").per(1, MINUTE), "the name of a limit is 1 to 100 characters").await;
    check(Limit::named("ipv6_prefix").per(1, MINUTE), "rename the limit").await;
    check(Limit::named("a").per(1, MINUTE).by_header("a b"), "is no name of a header").await;
    let doubled = |limit| group("/x").limit(limit).actions(actions![one]);
    let differ = App::new("limits")
        .actions(doubled(Limit::named("a").per(1, MINUTE)))
        .actions(group("/y").limit(Limit::named("a").per(2, MINUTE)).actions(actions![two]));
    let reason = testing::start(differ).refused().await;
    assert!(
        reason.contains("two limits have one name and differ, a 1/1m by address and a 2/1m by address"),
        "{reason}"
    );
    let unknown = |config: &mut Config| config.limits.named.extend([("sign_inn".into(), LimitSetting::Off)]);
    let reason = testing::start(App::new("limits").actions(actions![limited])).settings(unknown).refused().await;
    assert!(
        reason.contains("[limits] sign_inn: the application has no limit of this name, it has limited"),
        "{reason}"
    );
}

/// Counts by another parameter of the path under the name of another action's limit.
#[action(get = "/owners/{owner}", limit = Limit::named("tenant").per(1, MINUTE).by(|ctx| ctx.path("owner").ok()))]
async fn of_owner(_ctx: Context, input: Owner) -> Result<String, ActionError> {
    Ok(input.owner)
}

#[input]
struct Owner {
    owner: String,
}

/// No client can call it.
#[action(internal, limit = "1/1m")]
async fn inner(_ctx: Context) -> Result<u32, ActionError> {
    Ok(1)
}

#[tokio::test]
async fn actions_that_share_a_limit_have_keys_of_their_own() {
    let app = testing::start(App::new("limits").actions(actions![of_tenant, of_owner])).await;
    let client = app.client();
    for (path, status) in [
        ("/api/tenants/a", 200),
        ("/api/owners/b", 200),
        ("/api/owners/c", 200),
        ("/api/owners/a", 429),
        ("/api/tenants/b", 429),
    ] {
        assert_eq!(client.get(path).await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn a_limit_that_counts_no_call_is_refused_and_so_is_a_rate_that_code_sets_wrongly() {
    let reason = testing::start(App::new("limits").actions(actions![inner])).refused().await;
    assert!(reason.contains("action \"inner\" is internal and has a limit"), "{reason}");
    let wrong = |config: &mut Config| {
        let rate = LimitRate { calls: 0, window: MINUTE };
        config.limits.named.extend([("limited".into(), LimitSetting::Rate(rate))]);
    };
    let reason = testing::start(App::new("limits").actions(actions![limited])).settings(wrong).refused().await;
    assert!(reason.contains("limits.limited: a limit of no calls"), "{reason}");
}

/// Answers with a file that is not there.
#[action(get, limit = "9/1m")]
async fn lost(_ctx: Context) -> Result<Body, ActionError> {
    Ok(Body::file("/nowhere/at/all"))
}

#[tokio::test]
async fn the_headers_of_limits_come_with_a_missing_file_and_pages_of_named_origins_may_read_them() {
    let origin = "https://pages.example.com";
    let named = |config: &mut Config| config.web.cors_origins = vec![origin.to_owned()];
    let app = testing::start(App::new("limits").actions(actions![lost])).settings(named).await;
    let response = app.client().with_header("origin", origin).get("/api/lost").await;
    assert_eq!((response.status().as_u16(), header(&response, "ratelimit-policy")), (404, "\"lost\";q=9;w=60"));
    let exposed = header(&response, "access-control-expose-headers");
    for name in ["ratelimit", "ratelimit-policy", "retry-after"] {
        assert!(exposed.split(',').any(|exposed| exposed.trim() == name), "{exposed}");
    }
}

#[tokio::test]
async fn the_body_of_a_refused_call_is_not_read() {
    let app = testing::start(app()).await;
    let client = app.client();
    for _ in 0..3 {
        client.post("/api/shared/one", Value::Null).await;
    }
    // A body that is not JSON would be `malformed`.
    let posted = client.request(phalanx::http::Method::POST, "/api/shared/one").body("application/json", "{");
    posted.await.refused("rate_limited");
}
