//! The arguments of a periodic task: `every`, `cron`, `timezone`, `overlap`, `catch_up`.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{LitStr, Meta};

use crate::action::duration;
use crate::attr::{DeadlineArg, Diagnostics, deadline, text};

/// The arguments of a schedule; one that is absent has its default.
#[derive(Default)]
pub(crate) struct ScheduleArgs {
    every: Option<Duration>,
    cron: Option<LitStr>,
    timezone: Option<LitStr>,
    /// A variant of `phalanx::jobs::Overlap`.
    overlap: Option<&'static str>,
    /// A variant of `phalanx::jobs::CatchUp`.
    catch_up: Option<&'static str>,
}

const OVERLAP: [(&str, &str); 2] = [("skip", "Skip"), ("allow", "Allow")];

const CATCH_UP: [(&str, &str); 3] = [("last", "Last"), ("none", "None"), ("all", "All")];

/// The shortest interval, which the boot checks too.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

impl ScheduleArgs {
    /// Takes an argument; `false` if it is not about the schedule.
    pub(crate) fn set(&mut self, name: &str, meta: &Meta, diagnostics: &mut Diagnostics) -> bool {
        match name {
            "every" => {
                self.every = match deadline(meta) {
                    Some(DeadlineArg::After(interval)) if interval >= MIN_INTERVAL => Some(interval),
                    _ => {
                        diagnostics.add(meta, "an interval of 100 ms at least: `every = \"10s\"` (ms, s, m, h)");
                        None
                    }
                };
            }
            "cron" => {
                self.cron = text(meta, diagnostics);
                let is_line = |line: &LitStr| {
                    let line = line.value();
                    line.starts_with('@') || line.split_whitespace().count() == 5
                };
                if let Some(line) = self.cron.as_ref().filter(|line| !is_line(line)) {
                    diagnostics.add(
                        line,
                        "five fields, minute, hour, day, month, day of the week: `cron = \"30 2 * * *\"`; seconds need `every`",
                    );
                }
            }
            "timezone" => self.timezone = text(meta, diagnostics),
            "overlap" => self.overlap = word(meta, &OVERLAP, diagnostics),
            "catch_up" => self.catch_up = word(meta, &CATCH_UP, diagnostics),
            _ => return false,
        }
        true
    }

    /// Adds the errors of arguments that do not fit together.
    pub(crate) fn check<'a>(&self, metas: impl Iterator<Item = &'a Meta>, diagnostics: &mut Diagnostics) {
        let given: Vec<&Meta> = metas.collect();
        let find = |name: &str| given.iter().find(|meta| meta.path().is_ident(name));
        let (every, cron) = (find("every"), find("cron"));
        if let (Some(_), Some(cron)) = (every, cron) {
            diagnostics.add(cron, "a task ticks by `every` or by `cron`: remove one");
        }
        if let Some(meta) = find("timezone").filter(|_| cron.is_none()) {
            diagnostics.add(meta, "only `cron` has a time zone: add it, or remove this");
        }
        for meta in ["overlap", "catch_up"].into_iter().filter_map(find).filter(|_| every.or(cron).is_none()) {
            diagnostics.add(meta, "only a periodic task has ticks: add `every` or `cron`, or remove this");
        }
        if let Some(meta) = find("catch_up").filter(|_| self.catch_up == Some("All") && self.overlap != Some("Allow")) {
            diagnostics
                .add(meta, "`catch_up = \"all\"` needs `overlap = \"allow\"`: of several missed ticks one could wait");
        }
    }

    /// The value of `TaskDef::schedule`.
    pub(crate) fn expand(&self) -> TokenStream {
        let ticks = match (self.every, &self.cron) {
            (Some(interval), _) => {
                let interval = duration(interval);
                quote!(Every(#interval))
            }
            (None, Some(line)) => {
                let timezone = self.timezone.as_ref().map_or_else(|| "UTC".to_owned(), LitStr::value);
                quote!(Cron { line: #line, timezone: #timezone })
            }
            (None, None) => return quote!(::core::option::Option::None),
        };
        let overlap = format_ident!("{}", self.overlap.unwrap_or("Skip"));
        let catch_up = format_ident!("{}", self.catch_up.unwrap_or("Last"));
        quote! {
            ::core::option::Option::Some(::phalanx::__private::Schedule {
                ticks: ::phalanx::__private::TickRule::#ticks,
                overlap: ::phalanx::__private::Overlap::#overlap,
                catch_up: ::phalanx::__private::CatchUp::#catch_up,
            })
        }
    }
}

fn word(meta: &Meta, words: &[(&'static str, &'static str)], diagnostics: &mut Diagnostics) -> Option<&'static str> {
    let text = text(meta, diagnostics)?;
    let known = words.iter().find(|(word, _)| *word == text.value());
    if known.is_none() {
        let all: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        diagnostics.add(text, format!("one of {}", all.join(", ")));
    }
    known.map(|(_, variant)| *variant)
}
