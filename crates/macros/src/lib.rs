//! The attributes of Phalanx. Their expansions use only public items of `phalanx`: an author could write them by hand.
//!
//! The facade tests the examples of their docs. As tests of this crate they would need the facade built once more: what a
//! crate of macros is tested with gets features of its own.

mod action;
mod action_error;
mod attr;
mod io;
mod limit;
mod queue_limit;
mod remote;
mod rules;
mod schedule;
mod signature;
mod size;
mod task;

use proc_macro::TokenStream;

#[doc = include_str!("../docs/action.md")]
#[proc_macro_attribute]
pub fn action(arguments: TokenStream, item: TokenStream) -> TokenStream {
    action::expand(arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}

#[doc = include_str!("../docs/action_error.md")]
#[proc_macro_derive(ActionError, attributes(action_error, source, from, details))]
pub fn action_error(item: TokenStream) -> TokenStream {
    action_error::expand(item.into()).into()
}

#[doc = include_str!("../docs/remote.md")]
#[proc_macro_attribute]
pub fn remote(arguments: TokenStream, item: TokenStream) -> TokenStream {
    remote::expand(arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}

#[doc = include_str!("../docs/task.md")]
#[proc_macro_attribute]
pub fn task(arguments: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}

#[doc = include_str!("../docs/input.md")]
#[proc_macro_attribute]
pub fn input(arguments: TokenStream, item: TokenStream) -> TokenStream {
    io::expand(io::Role::Input, arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}

#[doc = include_str!("../docs/session.md")]
#[proc_macro_attribute]
pub fn session(arguments: TokenStream, item: TokenStream) -> TokenStream {
    io::expand(io::Role::Session, arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}

#[doc = include_str!("../docs/output.md")]
#[proc_macro_attribute]
pub fn output(arguments: TokenStream, item: TokenStream) -> TokenStream {
    io::expand(io::Role::Output, arguments.into(), item.into()).unwrap_or_else(|errors| errors).into()
}
