//! Routes of axum that are made of the node.

use phalanx::axum::Router;
use phalanx::axum::routing::get;
use phalanx::initializer::{Boot, Initializer};
use phalanx::prelude::*;
use phalanx::testing;
use phalanx::{BoxError, Guard, Refused};

struct Pool(&'static str);

/// Adds a pool, and needs a moment until it is open.
struct Database;

#[async_trait]
impl Initializer for Database {
    fn name(&self) -> &'static str {
        "database"
    }

    async fn initialize(&self, boot: &mut Boot<'_>) -> Result<(), BoxError> {
        boot.definitions.states.insert(Pool("a pool"));
        Ok(())
    }

    async fn start(&self, node: &Node) -> Result<(), BoxError> {
        Ok(node.rooms().create("opened").await?)
    }
}

async fn by_guards(Guard(node): Guard<Node>, Guard(pool): Guard<State<Pool>>) -> Result<String, Refused> {
    let is_open = node.rooms().exists("opened").await?;
    Ok(format!("{} by a guard, open: {is_open}", pool.0))
}

#[tokio::test]
async fn routes_are_made_of_the_node_once_its_initializers_have_started() {
    let app = App::new("routes")
        .initializer(Database)
        .router(Router::new().route("/plain", get(|| async { "plain" })))
        .routes(|node: Node| {
            let pool = node.state::<Pool>().ok_or("there is no pool")?;
            let text = format!("{} of {}", pool.0, node.app());
            let router = Router::new().route("/pool", get(move || async move { text }));
            Ok::<_, &str>(router.route("/guards", get(by_guards)))
        })
        .routes(|_| Router::new().route("/more", get(|| async { "more" })));
    let app = testing::start(app).await;
    for (path, expected) in [
        ("/plain", "plain"),
        ("/pool", "a pool of routes"),
        ("/guards", "a pool by a guard, open: true"),
        ("/more", "more"),
    ] {
        assert_eq!(app.client().get(path).await.ok().text(), expected, "{path}");
    }
}

#[tokio::test]
async fn a_boot_ends_with_the_reason_for_which_routes_were_not_made() {
    async fn check<R: phalanx::IntoRoutes>(routes: impl FnOnce(Node) -> R + Send + 'static, expected: &str) {
        let app = App::new("routes").router(Router::new().route("/taken", get(|| async {}))).routes(routes);
        let refused = testing::start(app).refused().await;
        assert!(refused.starts_with("App::routes: ") && refused.contains(expected), "{refused}");
    }
    check(|_| Err::<Router, _>("there is no pool"), "there is no pool").await;
    check(|node: Node| -> Router { panic!("{} cannot", node.app()) }, "panicked: routes cannot").await;
    check(|_| Router::new().route("/taken", get(|| async {})), "panicked: Overlapping method route").await;
}
