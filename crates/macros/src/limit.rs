//! The argument `limit` of `#[action]`.

use std::time::Duration;

use syn::{Expr, Lit, Meta};

use crate::attr::{Diagnostics, time, value};

/// A limit in the attribute.
pub(crate) enum LimitArg {
    /// `"10/1m"`: so many calls of an address, under the name of the action.
    Rate(u32, Duration),
    /// A value of the type `Limit`.
    Value(Box<Expr>),
}

/// A limit: a rate as text, or any other expression.
pub(crate) fn parse(meta: &Meta, diagnostics: &mut Diagnostics) -> Option<LimitArg> {
    let limit = match (value(meta), meta) {
        (Some(Lit::Str(text)), _) => rate(&text.value()).map(|(calls, window)| LimitArg::Rate(calls, window)),
        (None, Meta::NameValue(pair)) => Some(LimitArg::Value(Box::new(pair.value.clone()))),
        _ => None,
    };
    if limit.is_none() {
        diagnostics.add(
            meta,
            "write `limit = \"10/1m\"` for 10 calls of an address in a minute (ms, s, m, h), or a `Limit`: \
             `limit = Limit::named(\"search\").per(10, MINUTE)`",
        );
    }
    limit
}

fn rate(text: &str) -> Option<(u32, Duration)> {
    let (calls, window) = text.split_once('/')?;
    let calls = calls.trim().parse().ok().filter(|calls| *calls > 0)?;
    time(window.trim()).map(|window| (calls, window))
}
