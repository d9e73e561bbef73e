//! The arguments `limit` and `rate` of `#[task]`: the limits of its queue in the cluster.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Lit, LitInt, Meta};

use crate::action::duration;
use crate::attr::{Diagnostics, time, value};

/// The limits; one that is absent is none.
#[derive(Default)]
pub(crate) struct QueueLimitArgs {
    running: Option<u32>,
    rate: Option<(u32, Duration)>,
}

impl QueueLimitArgs {
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_none() && self.rate.is_none()
    }

    pub(crate) fn set_limit(&mut self, meta: &Meta, diagnostics: &mut Diagnostics) {
        let limit = match value(meta) {
            Some(Lit::Int(number)) => LitInt::base10_parse::<u32>(number).ok().filter(|limit| *limit > 0),
            _ => None,
        };
        if limit.is_none() {
            diagnostics.add(meta, "the most jobs of the queue that run at once in the cluster, from 1: `limit = 5`");
        }
        self.running = limit;
    }

    pub(crate) fn set_rate(&mut self, meta: &Meta, diagnostics: &mut Diagnostics) {
        self.rate = match value(meta) {
            Some(Lit::Str(text)) => rate(&text.value()),
            _ => None,
        };
        if self.rate.is_none() {
            diagnostics.add(
                meta,
                "how many jobs of the queue begin in a time in the cluster, from 1, with the unit of the time: \
                 `rate = \"100/s\"` or `rate = \"5/10m\"` (ms, s, m, h)",
            );
        }
    }

    /// The value of `TaskDef::limits`.
    pub(crate) fn expand(&self) -> TokenStream {
        let running = match self.running {
            Some(limit) => quote!(::core::option::Option::Some(#limit)),
            None => quote!(::core::option::Option::None),
        };
        let rate = match self.rate {
            Some((jobs, window)) => {
                let window = duration(window);
                quote!(::core::option::Option::Some(::phalanx::__private::JobRate { jobs: #jobs, window: #window }))
            }
            None => quote!(::core::option::Option::None),
        };
        quote!(::phalanx::__private::QueueLimits { running: #running, rate: #rate })
    }
}

/// A rate: a unit alone is one of it.
fn rate(text: &str) -> Option<(u32, Duration)> {
    let (jobs, window) = text.split_once('/')?;
    let jobs = jobs.trim().parse().ok().filter(|jobs| *jobs > 0)?;
    let window = window.trim();
    let is_unit = !window.starts_with(|first: char| first.is_ascii_digit());
    let window = if is_unit { time(&format!("1{window}")) } else { time(window) };
    window.map(|window| (jobs, window))
}
