//! The axum routes of an application.

use axum::Router;
use phalanx_core::{BoxError, Node};

use super::App;

/// Routes of axum, beside those of actions.
impl App {
    /// Merges the application's own axum routes.
    ///
    /// Actions, the WebSocket endpoint and the browser client keep their paths. These routes come next, then the files of
    /// the public folders, then the routes' fallback if they have one. Routes share request ids, the fingerprint cookie,
    /// limits and the access log with actions: a body is at most `web.max_body`, a multipart body at most
    /// `web.max_upload`, whichever extractor reads it, and a body that arrives too slowly is answered with 408. A handler
    /// runs in a span with the request's id, which is also an `Extension<RequestId>`.
    pub fn router(mut self, routes: Router) -> Self {
        self.routes.router = self.routes.router.merge(routes);
        self
    }

    /// Merges axum routes that are made of the node, with its handle: of states that initializers have added, of settings.
    ///
    /// `routes` runs once all initializers have started, on a node that has the role `web`. It returns a [`Router`], or a
    /// `Result` with one. Its error, its panic, and a route that is there already end the boot, with `App::routes` as the reason;
    /// `start --check`, which starts nothing, does not run it. The routes are served as those of [`router`](Self::router),
    /// whose handlers have guards too, by [`Guard`](crate::Guard).
    ///
    /// ```
    /// use phalanx::axum::{Router, routing::get};
    /// use phalanx::prelude::*;
    ///
    /// struct Pool(&'static str);
    ///
    /// let app = App::new("shop").state(Pool("a pool")).routes(|node: Node| {
    ///     let pool = node.state::<Pool>().ok_or("there is no pool")?;
    ///     Ok::<_, &str>(Router::new().route("/pool", get(async move || pool.0)))
    /// });
    /// # drop(app);
    /// ```
    pub fn routes<R: IntoRoutes>(mut self, routes: impl FnOnce(Node) -> R + Send + 'static) -> Self {
        self.routes.makers.push(Box::new(move |node| routes(node).into_routes()));
        self
    }

    /// Lets pages of every other site send requests to this path of [`router`](Self::router), with the cookies of their
    /// user: `.cross_site("/pay/return")`. Meant for returns from payment and sign-in pages, which prove by a token of
    /// their own that the user wants what they request.
    ///
    /// Other own routes answer such requests with 403 `cross_site`, unless the method only reads, or `web.cors_origins`
    /// lists the origin. The path has axum's syntax. An action has `#[action(cross_site)]` instead.
    pub fn cross_site(mut self, path: impl Into<String>) -> Self {
        self.routes.cross_site.push(path.into());
        self
    }
}

/// The result of a function of [`App::routes`]: a [`Router`], or a `Result` with one.
pub trait IntoRoutes {
    /// The routes.
    ///
    /// # Errors
    ///
    /// That of the `Result`.
    fn into_routes(self) -> Result<Router, BoxError>;
}

impl IntoRoutes for Router {
    fn into_routes(self) -> Result<Router, BoxError> {
        Ok(self)
    }
}

impl<E: Into<BoxError>> IntoRoutes for Result<Router, E> {
    fn into_routes(self) -> Result<Router, BoxError> {
        self.map_err(Into::into)
    }
}
