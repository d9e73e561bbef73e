//! Enums of errors that compile, and how they are answered.

use std::error::Error;
use std::fmt;

use phalanx::prelude::*;

#[derive(Debug, ActionError)]
enum TicketError<T: fmt::Display> {
    #[action_error(not_found, message = "there is no ticket {id}")]
    NoSuchTicket { id: T },
    #[action_error(conflict, code = "closed", message = "{0} has closed {{it}}, {1:?}")]
    AlreadyClosed(&'static str, u8),
    #[action_error(
        invalid_input,
        message = "not like this",
        detail("title", "taken", "{0} is taken"),
        detail("by", "x", "y")
    )]
    Taken(String),
    #[action_error(invalid_input, message = "not like this")]
    Faulty(#[details] Vec<Detail>),
    #[action_error(unavailable, message = "ask again")]
    Away { source: fmt::Error },
    #[action_error(internal)]
    Store(#[source] std::io::Error, u8),
    #[action_error(internal)]
    Broken,
    #[action_error(transparent)]
    Other(ActionError),
}

/// As thiserror derives it, whose attributes are not known here.
#[derive(Debug, ActionError)]
enum Single {
    #[action_error(forbidden, code = "no", message = "no")]
    No,
}

/// Fields that are named as the expansion could name its own values. With an error's text, as thiserror makes it of `#[error]`.
#[derive(Debug, ActionError, thiserror::Error)]
enum Shadows {
    #[error("shown: {text}")]
    #[action_error(conflict)]
    Text { text: String },
    #[error("shown: {error}")]
    #[action_error(conflict)]
    Error { error: String },
    #[error("hidden: {error}")]
    #[action_error(internal)]
    Hidden { error: String },
    #[error("for the log")]
    #[action_error(conflict, message = "{error} {text}")]
    Message { error: u8, text: u8 },
}

#[test]
fn names_of_fields_do_not_clash_with_the_expansion() {
    let check = |error: Shadows, message: &str| assert_eq!(ActionError::from(error).message(), message);
    check(Shadows::Text { text: "secret".into() }, "shown: secret");
    check(Shadows::Error { error: "secret".into() }, "shown: secret");
    check(Shadows::Message { error: 1, text: 2 }, "1 2");
    let hidden = ActionError::from(Shadows::Hidden { error: "x".into() });
    assert_eq!(hidden.source().map(ToString::to_string).as_deref(), Some("hidden: x"));
}

fn answered(error: TicketError<u8>) -> (ErrorKind, String, String, Option<String>) {
    let error = ActionError::from(error);
    let source = error.source().map(ToString::to_string);
    (error.kind(), error.code().to_owned(), error.message().to_owned(), source)
}

#[test]
fn each_variant_is_answered_as_it_says() {
    let check = |error, kind: ErrorKind, code: &str, message: &str, source: Option<&str>| {
        assert_eq!(answered(error), (kind, code.to_owned(), message.to_owned(), source.map(str::to_owned)));
    };
    use ErrorKind::{Conflict, Forbidden, Internal, InvalidInput, NotFound, Unavailable};
    check(TicketError::NoSuchTicket { id: 7 }, NotFound, "no_such_ticket", "there is no ticket 7", None);
    check(TicketError::AlreadyClosed("ann", 1), Conflict, "closed", "ann has closed {it}, 1", None);
    check(TicketError::Taken("it".into()), InvalidInput, "taken", "not like this", None);
    check(TicketError::Away { source: fmt::Error }, Unavailable, "away", "ask again", Some(&fmt::Error.to_string()));
    let full = std::io::Error::other("disk full");
    check(TicketError::Store(full, 1), Internal, "internal", "internal error", Some("disk full"));
    check(TicketError::Broken, Internal, "internal", "internal error", Some("TicketError::Broken"));
    check(TicketError::Other(ActionError::forbidden("no")), Forbidden, "forbidden", "no", None);
    assert_eq!(ActionError::from(Single::No).code(), "no");
}

#[test]
fn a_variant_lists_wrong_fields() {
    let taken = ActionError::from(TicketError::<u8>::Taken("it".into()));
    let expected = [Detail::new("title", "taken", "it is taken"), Detail::new("by", "x", "y")];
    assert_eq!(taken.details(), expected);
    let details = vec![Detail::new("title", "length", "is too long")];
    assert_eq!(ActionError::from(TicketError::<u8>::Faulty(details.clone())).details(), details);
}

/// `?` converts, and `ensure!` does.
fn close(id: u64) -> Result<u64, ActionError> {
    ensure!(id != 13, Single::No);
    let ticket = Some(id).filter(|id| *id != 0).or_not_found()?;
    "7".parse::<u64>().or_internal()?;
    ensure!(ticket != 12, TicketError::<u64>::AlreadyClosed("ann", 1));
    Ok(ticket)
}

#[test]
fn errors_convert_on_their_way_up() {
    let code = |id| close(id).map_err(|error| error.code().to_owned());
    assert_eq!(code(7), Ok(7));
    assert_eq!([code(13), code(0), code(12)], ["no", "not_found", "closed"].map(|code| Err(code.to_owned())));
}

/// The error of an action.
#[action(post)]
async fn close_ticket(_ctx: Context) -> Result<u64, Single> {
    ensure!(close(7).is_ok(), Single::No);
    Ok(7)
}

#[test]
fn a_derived_error_is_the_error_of_an_action() {
    assert_eq!(actions![close_ticket][0].name, "close_ticket");
}
