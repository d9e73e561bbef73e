//! The user of a session, and the guards by it: over HTTP, over sockets and in hooks.

use std::sync::Arc;

use phalanx::prelude::*;

use crate::tickets::{Ticket, Tickets};

/// The value of a session.
#[session]
#[derive(Clone, Debug)]
pub struct Account {
    /// The name of the user.
    pub user: String,
    /// Whether the user answers tickets.
    pub is_agent: bool,
}

impl SessionData for Account {
    fn user(&self) -> Option<&str> {
        Some(&self.user)
    }
}

/// The user who is signed in.
#[derive(Debug)]
pub struct Me(pub Arc<Account>);

impl FromContext for Me {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let session: Session<Account> = ctx.guard().await?;
        session.get().map(Self).ok_or_else(|| ActionError::unauthenticated("sign in first"))
    }

    fn require(requirements: &mut Requirements) {
        Session::<Account>::require(requirements);
    }
}

/// A user who answers tickets.
#[derive(Debug)]
pub struct Agent;

impl FromContext for Agent {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let me: Me = ctx.guard().await?;
        ensure!(me.0.is_agent, ActionError::forbidden("agents only"));
        Ok(Self)
    }

    fn require(requirements: &mut Requirements) {
        Me::require(requirements);
    }
}

/// The ticket `{id}` of the path, if it is the user's own, or the user is an agent. It is known before the body comes: a file for
/// another ticket costs nothing.
#[derive(Debug)]
pub struct Readable(pub Ticket);

impl FromContext for Readable {
    async fn from_context(ctx: &Context) -> Result<Self, ActionError> {
        let (me, tickets): (Me, State<Tickets>) = (ctx.guard().await?, ctx.state()?);
        let ticket = tickets.get(ctx.path("id")?).filter(|ticket| me.0.is_agent || ticket.by == me.0.user);
        Ok(Self(ticket.or_not_found()?))
    }

    fn require(requirements: &mut Requirements) {
        Me::require(requirements);
        requirements.state::<Tickets>();
    }
}
