//! A node with one action three times: bare, with a session, with a limit. The rows of [`crate::beside`] compare their calls.
//! And one that gives a socket the tag to which another sends, for [`crate::crowd`].

use std::net::Ipv4Addr;

use phalanx::App;
use phalanx::config::Config;
use phalanx::prelude::*;

use crate::Anyhow;
use crate::apply::TOKEN;

/// The session of every client.
#[session]
#[derive(Clone)]
struct Visitor {
    user: String,
    language: String,
}

impl SessionData for Visitor {
    fn user(&self) -> Option<&str> {
        Some(&self.user)
    }
}

#[input]
struct Text {
    text: String,
}

#[output]
struct Echoed {
    text: String,
}

/// Signs in.
#[action(post)]
async fn enter(_ctx: Context, session: Session<Visitor>, _: NoInput) -> Result<(), ActionError> {
    session.start(Visitor { user: "ada".to_owned(), language: "en".to_owned() }).await
}

/// Answers with its input.
#[action(get = "/plain/{text}")]
async fn plain(_ctx: Context, input: Text) -> Result<Echoed, ActionError> {
    Ok(Echoed { text: input.text })
}

/// The same for those who have signed in.
#[action(get = "/session/{text}")]
async fn session(_ctx: Context, session: Session<Visitor>, input: Text) -> Result<Echoed, ActionError> {
    let visitor = session.get().ok_or_else(|| ActionError::unauthenticated("sign in first"))?;
    ensure!(visitor.language == "en", ActionError::forbidden("another language"));
    Ok(Echoed { text: input.text })
}

/// The same with a limit that is out of reach.
#[action(get = "/limited/{text}", limit = "1000000000/1m")]
async fn limited(_ctx: Context, input: Text) -> Result<Echoed, ActionError> {
    Ok(Echoed { text: input.text })
}

/// Joins the crowd.
#[action]
async fn join(_ctx: Context, connection: Connection, _: NoInput) -> Result<(), ActionError> {
    connection.tag("crowd").await
}

/// Sends a text to the crowd, and answers with it.
#[action(get = "/shout/{text}")]
async fn shout(ctx: Context, input: Text) -> Result<Echoed, ActionError> {
    ctx.connections().tagged("crowd").send(&serde_json::json!({ "context": "crowd", "text": input.text })).await?;
    Ok(Echoed { text: input.text })
}

/// Serves until it is killed, on the memory backend or at a Redis.
pub(crate) async fn serve(redis_url: Option<String>) -> Result<(), Anyhow> {
    let mut config = Config::default();
    config.general.server_token = TOKEN.to_owned();
    config.web.bind = Ipv4Addr::LOCALHOST.into();
    config.web.port = 0;
    config.web.access_log = false;
    config.websocket.messages_per_second = 0;
    config.websocket.upgrades_per_second = 0;
    config.admin.bind = String::new();
    let app = App::new("bench").session::<Visitor>().actions(actions![enter, plain, session, limited, join, shout]);
    let node = match redis_url {
        Some(url) => app.start_in_cluster(config, &url).await?,
        None => app.start(config).await?,
    };
    println!("listening on http://{}", node.addr());
    std::future::pending().await
}
