//! Tests of whole applications: the application in the process of the test, with clients that speak HTTP and WebSocket to it.
//!
//! Behind the feature `testing`, for `[dev-dependencies]`; [`guide::testing`](crate::guide::testing) shows how tests are written.
//!
//! ```
//! use phalanx::prelude::*;
//! use phalanx::serde_json::json;
//! use phalanx::testing;
//!
//! #[input]
//! struct Greet {
//!     name: String,
//! }
//!
//! #[output]
//! struct Greeting {
//!     text: String,
//! }
//!
//! /// Greets a person.
//! #[action(get = "/greet/{name}")]
//! async fn greet(input: Greet) -> Result<Greeting, ActionError> {
//!     Ok(Greeting { text: format!("Hello, {}!", input.name) })
//! }
//!
//! fn app() -> App {
//!     App::new("hello").actions(actions![greet])
//! }
//!
//! # #[tokio::main]
//! # async fn main() {
//! let app = testing::start(app()).await;
//! let ada = app.client();
//! assert_eq!(ada.get("/api/greet/Ada").await.ok().json(), json!({ "text": "Hello, Ada!" }));
//! let greeting = ada.call::<greet>(Greet { name: "Bob".into() }).await.unwrap();
//! assert_eq!(greeting.text, "Hello, Bob!");
//! # }
//! ```

mod app;
mod call;
mod client;
mod clock;
mod cookies;
mod frames;
mod job_store;
mod jobs;
mod nodes;
mod panics;
mod response;
mod socket;
mod start;
mod upgrade;
mod waiting;

pub use app::TestApp;
pub use call::TestError;
pub use client::{TestClient, TestRequest};
pub use clock::TestClock;
pub use job_store::DrainedJobs;
pub use response::TestResponse;
pub use socket::TestSocket;
pub use start::{TestPairStart, TestStart, start, two};
pub use upgrade::TestUpgrade;
pub use waiting::until;
