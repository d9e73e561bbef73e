//! The actions of the desk.

use std::path::PathBuf;

use phalanx::prelude::*;
use phalanx::serde_json::json;
use tokio::fs::create_dir_all;

use crate::DeskSettings;
use crate::account::{Account, Me, Readable};
use crate::tickets::{Ticket, Tickets};
use crate::users::Users;

/// The room in which agents see all tickets.
pub(crate) const TICKETS: &str = "tickets";

/// How many tickets a list has.
const LISTED: usize = 100;

/// A name and a password.
#[input]
#[derive(Debug)]
pub struct SignIn {
    /// The name.
    #[validate(length(min = 1, max = 32))]
    pub user: String,
    /// The password.
    #[secret]
    #[validate(length(max = 128))]
    pub password: String,
}

/// Signs a user in.
#[action(name = "signIn", post, block(websocket), limit = Limit::named("sign_in").per(10, MINUTE).by_address())]
pub async fn sign_in(session: Session<Account>, users: State<Users>, input: SignIn) -> Result<(), ActionError> {
    let account = users.check(&input.user, input.password).await?;
    session.start(account.ok_or_else(|| ActionError::unauthenticated("wrong name or password"))?).await
}

/// Signs the user out, on every node.
#[action(name = "signOut", post)]
pub async fn sign_out(session: Session<Account>) -> Result<(), ActionError> {
    session.end().await
}

/// Ends the sessions of the user on all other devices, and says how many there were.
#[action(name = "signOutOthers", post)]
pub async fn sign_out_others(ctx: Context) -> Result<usize, ActionError> {
    ctx.sessions().end_others().await
}

/// A user.
#[output]
#[derive(Debug)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The name.
    pub user: String,
    /// Whether the user answers tickets.
    pub is_agent: bool,
}

/// Shows who is signed in.
#[action(name = "whoAmI", get)]
pub async fn who_am_i(me: Me) -> Result<User, ActionError> {
    Ok(User { user: me.0.user.clone(), is_agent: me.0.is_agent })
}

/// Tickets.
#[output]
#[derive(Debug)]
pub struct TicketList {
    /// The newest first.
    pub tickets: Vec<Ticket>,
}

/// Lists the newest tickets of the user; for an agent those of all users.
#[action(get)]
pub async fn tickets(me: Me, tickets: State<Tickets>) -> Result<TicketList, ActionError> {
    let of = (!me.0.is_agent).then_some(&*me.0.user);
    Ok(TicketList { tickets: tickets.newest(of, LISTED) })
}

/// A question.
#[input]
#[derive(Debug)]
pub struct Question {
    /// The text.
    #[validate(length(min = 1, max = 2000))]
    pub text: String,
}

/// Opens a ticket.
#[action(name = "ticket:open", post = "/tickets")]
pub async fn open(ctx: Context, me: Me, tickets: State<Tickets>, input: Question) -> Result<Ticket, ActionError> {
    announce(&ctx, tickets.open(&me.0.user, input.text)?).await
}

/// The number of a ticket.
#[input]
#[derive(Debug)]
pub struct TicketId {
    /// The number.
    pub id: u64,
}

/// Closes a ticket.
#[action(name = "ticket:close", post = "/tickets/{id}/close")]
pub async fn close(ctx: Context, tickets: State<Tickets>, input: TicketId) -> Result<Ticket, ActionError> {
    announce(&ctx, tickets.change(input.id, |ticket| ticket.is_open = false).or_not_found()?).await
}

/// Shows a ticket that has changed to its user, on all devices, and to all agents.
async fn announce(ctx: &Context, ticket: Ticket) -> Result<Ticket, ActionError> {
    ctx.connections().user(&ticket.by).send(&json!({ "context": "alert", "ticket": ticket })).await?;
    ctx.rooms().say(TICKETS, &ticket).await?;
    Ok(ticket)
}

/// A file of a ticket.
#[input]
#[derive(Debug)]
pub struct Attachment {
    /// The number of the ticket.
    pub id: u64,
    /// The file.
    pub file: Upload,
}

/// Adds a file to a ticket, in place of the one that it has.
#[action(name = "ticket:attach", post = "/tickets/{id}/file", max_upload = "10MiB")]
pub async fn attach(
    ctx: Context,
    ticket: Readable,
    tickets: State<Tickets>,
    settings: State<DeskSettings>,
    input: Attachment,
) -> Result<Ticket, ActionError> {
    create_dir_all(&settings.files).await.or_internal()?;
    input.file.persist(path(&ctx, &settings, ticket.0.id)).await?;
    let name = input.file.name().chars().take(100).collect();
    announce(&ctx, tickets.change(ticket.0.id, |ticket| ticket.file = Some(name)).or_not_found()?).await
}

/// Answers the file of a ticket.
#[action(name = "ticket:file", get = "/tickets/{id}/file", block(websocket))]
pub async fn download(
    ctx: Context,
    ticket: Readable,
    settings: State<DeskSettings>,
    _: TicketId,
) -> Result<Reply<Body>, ActionError> {
    let Readable(Ticket { id, file, .. }) = ticket;
    Ok(Body::file(path(&ctx, &settings, id)).attachment(&file.or_not_found()?))
}

/// The path of a ticket's file, of which nothing comes from a client. Each node counts its own tickets.
fn path(ctx: &Context, settings: &DeskSettings, id: u64) -> PathBuf {
    settings.files.join(format!("{}-{id}", ctx.node().id()))
}
