//! The arguments of an attribute, with their spans. All errors are collected, so that the author sees them at once.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, Lit, LitInt, LitStr, Meta, Token};

use crate::limit::{self, LimitArg};
use crate::queue_limit::QueueLimitArgs;
use crate::schedule::ScheduleArgs;
use crate::size;

/// The errors found so far.
#[derive(Default)]
pub(crate) struct Diagnostics(Option<Error>);

impl Diagnostics {
    /// Adds an error that underlines all of `tokens`; without tokens the compiler underlines the attribute.
    pub(crate) fn add(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.push(Error::new_spanned(tokens, message));
    }

    /// Adds an error of the parser.
    pub(crate) fn push(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// The tokens by which the compiler prints the errors, if there are any.
    pub(crate) fn into_tokens(self) -> Option<TokenStream> {
        self.0.map(Error::into_compile_error)
    }
}

/// A route in the attribute.
pub(crate) struct RouteArg {
    pub(crate) method: &'static str,
    pub(crate) path: Option<LitStr>,
}

/// A deadline in the attribute.
#[derive(Clone, Copy)]
pub(crate) enum DeadlineArg {
    Default,
    Never,
    After(Duration),
}

/// The parsed arguments of an attribute.
pub(crate) struct Arguments {
    is_task: bool,
    pub(crate) name: Option<LitStr>,
    pub(crate) version: u32,
    pub(crate) routes: Vec<RouteArg>,
    pub(crate) deadline: DeadlineArg,
    pub(crate) block_websocket: bool,
    pub(crate) cross_site: bool,
    pub(crate) internal: bool,
    pub(crate) cancel_on_disconnect: bool,
    pub(crate) finish_stream: bool,
    pub(crate) limits: Vec<LimitArg>,
    pub(crate) max_body: Option<u64>,
    pub(crate) max_upload: Option<u64>,
    pub(crate) raw_body: bool,
    pub(crate) queue: Option<LitStr>,
    pub(crate) retry: RetryArgs,
    pub(crate) blocking: bool,
    pub(crate) exclusive: bool,
    pub(crate) tracked: bool,
    pub(crate) queue_limits: QueueLimitArgs,
    pub(crate) fair_by: Option<LitStr>,
    pub(crate) on_failed: Option<TokenStream>,
    pub(crate) schedule: ScheduleArgs,
    pub(crate) unique: UniqueArgs,
}

/// The arguments of a task's uniqueness; what is not given has its default.
#[derive(Default)]
pub(crate) struct UniqueArgs {
    pub(crate) key: Option<UniqueKeyArg>,
    /// A variant of `UniqueUntil`.
    pub(crate) until: Option<&'static str>,
    /// A variant of `UniqueScope`.
    pub(crate) scope: Option<&'static str>,
    pub(crate) lifetime: Option<Duration>,
}

/// The unique key in the attribute.
pub(crate) enum UniqueKeyArg {
    Input,
    Fields(Vec<String>),
    Function(TokenStream),
}

/// The arguments of a task's retries; what is not given has its default.
#[derive(Default)]
pub(crate) struct RetryArgs {
    pub(crate) attempts: Option<u32>,
    pub(crate) backoff: Option<Duration>,
    pub(crate) max_backoff: Option<Duration>,
    pub(crate) jitter: Option<Lit>,
    /// Variants of `phalanx::ErrorKind`.
    pub(crate) not_retried: Vec<&'static str>,
}

/// The kinds of errors, by their names on the wire.
pub(crate) const KINDS: [(&str, &str); 14] = [
    ("malformed", "Malformed"),
    ("unauthenticated", "Unauthenticated"),
    ("forbidden", "Forbidden"),
    ("not_found", "NotFound"),
    ("method_not_allowed", "MethodNotAllowed"),
    ("conflict", "Conflict"),
    ("payload_too_large", "PayloadTooLarge"),
    ("unsupported_media_type", "UnsupportedMediaType"),
    ("invalid_input", "InvalidInput"),
    ("rate_limited", "RateLimited"),
    ("too_many_pending", "TooManyPending"),
    ("internal", "Internal"),
    ("unavailable", "Unavailable"),
    ("timeout", "Timeout"),
];

const METHODS: [(&str, &str); 5] =
    [("get", "Get"), ("post", "Post"), ("put", "Put"), ("patch", "Patch"), ("delete", "Delete")];

/// The arguments of `#[action]`.
pub(crate) const ACTION: &[&str] = &[
    "name",
    "version",
    "get",
    "post",
    "put",
    "patch",
    "delete",
    "deadline",
    "block",
    "cross_site",
    "internal",
    "cancel_on_disconnect",
    "finish_stream",
    "limit",
    "max_body",
    "max_upload",
    "raw_body",
];

/// The arguments about the HTTP body.
const BODY: [&str; 3] = ["max_body", "max_upload", "raw_body"];

/// The arguments of `#[remote]`.
pub(crate) const REMOTE: &[&str] = &["name", "deadline"];

/// The arguments of `#[task]`.
pub(crate) const TASK: &[&str] = &[
    "name",
    "queue",
    "attempts",
    "backoff",
    "max_backoff",
    "jitter",
    "no_retry",
    "deadline",
    "blocking",
    "exclusive",
    "tracked",
    "limit",
    "rate",
    "fair_by",
    "on_failed",
    "every",
    "cron",
    "timezone",
    "overlap",
    "catch_up",
    "unique",
    "unique_until",
    "unique_scope",
    "unique_for",
];

/// Parses the arguments of an attribute whose argument names are `known`.
pub(crate) fn parse(tokens: TokenStream, known: &[&str], diagnostics: &mut Diagnostics) -> Arguments {
    let mut arguments = Arguments {
        is_task: known == TASK,
        name: None,
        version: 1,
        routes: Vec::new(),
        deadline: DeadlineArg::Default,
        block_websocket: false,
        cross_site: false,
        internal: false,
        cancel_on_disconnect: false,
        finish_stream: false,
        limits: Vec::new(),
        max_body: None,
        max_upload: None,
        raw_body: false,
        queue: None,
        retry: RetryArgs::default(),
        blocking: false,
        exclusive: false,
        tracked: false,
        queue_limits: QueueLimitArgs::default(),
        fair_by: None,
        on_failed: None,
        schedule: ScheduleArgs::default(),
        unique: UniqueArgs::default(),
    };
    let metas = match Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens) {
        Ok(metas) => metas,
        Err(error) => {
            diagnostics.push(error);
            return arguments;
        }
    };
    let mut seen: Vec<String> = Vec::new();
    for meta in &metas {
        let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        if !known.contains(&name.as_str()) {
            diagnostics.add(meta.path(), unknown(&name, known));
            continue;
        }
        let is_repeatable = method(&name).is_some() || name == "limit" && !arguments.is_task;
        if !is_repeatable && seen.contains(&name) {
            diagnostics.add(meta, format!("`{name}` is given twice"));
        }
        seen.push(name.clone());
        arguments.set(&name, meta, diagnostics);
    }
    let opens = |meta: &&Meta| {
        meta.path()
            .get_ident()
            .is_some_and(|name| name == "block" || name == "cross_site" || method(&name.to_string()).is_some())
    };
    for meta in metas.iter().filter(opens).filter(|_| arguments.internal) {
        diagnostics.add(meta, "clients cannot reach an `internal` action: remove this, or `internal`");
    }
    let is_checked = arguments.routes.iter().any(|route| route.method != "Get");
    let cross_site = metas.iter().find(|meta| meta.path().is_ident("cross_site"));
    if let Some(meta) = cross_site.filter(|_| !is_checked && !arguments.internal) {
        diagnostics.add(
            meta,
            "only `post`, `put`, `patch` and `delete` are closed to pages of other sites: add one, or remove this",
        );
    }
    let bounds = |meta: &&Meta| BODY.iter().any(|name| meta.path().is_ident(name));
    for meta in metas.iter().filter(bounds).filter(|_| arguments.routes.is_empty()) {
        diagnostics.add(meta, "only HTTP requests have a body: name a method, such as `post`, or remove this");
    }
    if let Some(meta) = metas.iter().find(|meta| meta.path().is_ident("max_upload")).filter(|_| arguments.raw_body) {
        diagnostics.add(meta, "a `raw_body` has no files: its bound is `max_body`");
    }
    arguments.schedule.check(metas.iter(), diagnostics);
    arguments
}

impl Arguments {
    fn set(&mut self, name: &str, meta: &Meta, diagnostics: &mut Diagnostics) {
        match name {
            "name" => {
                self.name = text(meta, diagnostics);
                if let Some(name) = &self.name {
                    check_name(name, diagnostics);
                }
            }
            "version" => self.version = version(meta, diagnostics),
            "deadline" => {
                self.deadline = deadline(meta).unwrap_or_else(|| {
                    diagnostics
                        .add(meta, "a deadline needs a unit: `deadline = \"5s\"` (ms, s, m, h); \"0\" means none");
                    DeadlineArg::Default
                });
            }
            "block" => self.block_websocket = block(meta, diagnostics),
            "cross_site" => self.cross_site = flag(meta, diagnostics),
            "internal" => self.internal = flag(meta, diagnostics),
            "cancel_on_disconnect" => self.cancel_on_disconnect = flag(meta, diagnostics),
            "finish_stream" => self.finish_stream = flag(meta, diagnostics),
            "limit" if self.is_task => self.queue_limits.set_limit(meta, diagnostics),
            "fair_by" => self.fair_by = text(meta, diagnostics),
            "rate" => self.queue_limits.set_rate(meta, diagnostics),
            "limit" => self.limits.extend(limit::parse(meta, diagnostics)),
            "max_body" => self.max_body = size::parse(meta, diagnostics),
            "max_upload" => self.max_upload = size::parse(meta, diagnostics),
            "raw_body" => self.raw_body = flag(meta, diagnostics),
            "queue" => {
                self.queue = text(meta, diagnostics);
                if let Some(queue) = &self.queue {
                    check_name(queue, diagnostics);
                }
            }
            "attempts" => self.retry.attempts = attempts(meta, diagnostics),
            "backoff" => self.retry.backoff = pause(meta, diagnostics),
            "max_backoff" => self.retry.max_backoff = pause(meta, diagnostics),
            "jitter" => self.retry.jitter = jitter(meta, diagnostics),
            "no_retry" => self.retry.not_retried = kinds(meta, diagnostics),
            "blocking" => self.blocking = flag(meta, diagnostics),
            "exclusive" => self.exclusive = flag(meta, diagnostics),
            "tracked" => self.tracked = flag(meta, diagnostics),
            "on_failed" => self.on_failed = function(meta, diagnostics),
            "unique" => self.unique.key = unique_key(meta, diagnostics),
            "unique_until" => self.unique.until = variant(meta, [("end", "End"), ("start", "Start")], diagnostics),
            "unique_scope" => self.unique.scope = variant(meta, [("task", "Task"), ("queue", "Queue")], diagnostics),
            "unique_for" => self.unique.lifetime = lifetime(meta, diagnostics),
            name => {
                if self.schedule.set(name, meta, diagnostics) {
                    return;
                }
                let Some(method) = method(name) else { return };
                let path = match meta {
                    Meta::Path(_) => None,
                    _ => text(meta, diagnostics),
                };
                if let Some(path) = &path {
                    check_path(path, diagnostics);
                }
                self.routes.push(RouteArg { method, path });
            }
        }
    }
}

/// The variant of `phalanx::Method` for the name of a method.
fn method(name: &str) -> Option<&'static str> {
    METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
}

fn unknown(name: &str, known: &[&str]) -> String {
    match name {
        "head" if known.contains(&"get") => "`get` also answers HEAD".to_owned(),
        "options" if known.contains(&"get") => "the server answers OPTIONS itself".to_owned(),
        _ => nearest("argument", name, known),
    }
}

/// The error for an unknown name, with the one that was meant.
pub(crate) fn nearest(noun: &str, name: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|known| (distance(name, known), known))
        .min()
        .filter(|(far, _)| *far <= (name.len() / 3).max(1));
    match near {
        Some((_, known)) => format!("there is no {noun} `{name}`; did you mean `{known}`?"),
        None => format!("there is no {noun} `{name}`; the {noun}s are {}", known.join(", ")),
    }
}

/// The Levenshtein distance of two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = before + usize::from(left != *right);
            before = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}

pub(crate) fn text(meta: &Meta, diagnostics: &mut Diagnostics) -> Option<LitStr> {
    match value(meta) {
        Some(Lit::Str(text)) => Some(text.clone()),
        _ => {
            let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
            diagnostics.add(meta, format!("write `{name} = \"…\"`"));
            None
        }
    }
}

fn flag(meta: &Meta, diagnostics: &mut Diagnostics) -> bool {
    if !matches!(meta, Meta::Path(_)) {
        diagnostics.add(meta, "this argument takes no value");
    }
    true
}

pub(crate) fn value(meta: &Meta) -> Option<&Lit> {
    match meta {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(ExprLit { lit, .. }) => Some(lit),
            _ => None,
        },
        _ => None,
    }
}

fn attempts(meta: &Meta, diagnostics: &mut Diagnostics) -> Option<u32> {
    let number = match value(meta) {
        Some(Lit::Int(number)) => LitInt::base10_parse::<u32>(number).ok().filter(|number| *number > 0),
        _ => None,
    };
    if number.is_none() {
        diagnostics.add(meta, "the most attempts, from 1: `attempts = 3`");
    }
    number
}

fn pause(meta: &Meta, diagnostics: &mut Diagnostics) -> Option<Duration> {
    match deadline(meta) {
        Some(DeadlineArg::After(pause)) => Some(pause),
        Some(DeadlineArg::Never) => Some(Duration::ZERO),
        Some(DeadlineArg::Default) | None => {
            let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
            diagnostics.add(meta, format!("a pause needs a unit: `{name} = \"5s\"` (ms, s, m, h)"));
            None
        }
    }
}

fn jitter(meta: &Meta, diagnostics: &mut Diagnostics) -> Option<Lit> {
    let share = match value(meta) {
        Some(share @ Lit::Float(number)) if number.base10_parse::<f32>().is_ok_and(|share| share <= 1.0) => {
            Some(share.clone())
        }
        _ => None,
    };
    if share.is_none() {
        diagnostics.add(meta, "the random share of a pause, from 0.0 to 1.0: `jitter = 0.5`");
    }
    share
}

fn kinds(meta: &Meta, diagnostics: &mut Diagnostics) -> Vec<&'static str> {
    let names = match meta {
        Meta::List(list) => list.parse_args_with(Punctuated::<syn::Ident, Token![,]>::parse_terminated).ok(),
        Meta::Path(_) | Meta::NameValue(_) => None,
    };
    let Some(names) = names.filter(|names| !names.is_empty()) else {
        diagnostics.add(meta, "the kinds of errors that are final: `no_retry(not_found, invalid_input)`");
        return Vec::new();
    };
    let known = names.iter().filter_map(|name| {
        let kind = KINDS.iter().find(|(kind, _)| name == kind).map(|(_, variant)| *variant);
        if kind.is_none() {
            let all: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
            diagnostics.add(name, format!("there is no such kind of error; the kinds are {}", all.join(", ")));
        }
        kind
    });
    known.collect()
}

fn function(meta: &Meta, diagnostics: &mut Diagnostics) -> Option<TokenStream> {
    match meta {
        Meta::NameValue(pair) if matches!(pair.value, Expr::Path(_)) => Some(pair.value.to_token_stream()),
        _ => {
            diagnostics
                .add(meta, "the name of a function that takes `TaskContext` and `TaskFailure`: `on_failed = report`");
            None
        }
    }
}

fn unique_key(meta: &Meta, diagnostics: &mut Diagnostics) -> Option<UniqueKeyArg> {
    let fields = |list: &syn::MetaList| {
        let names = list.parse_args_with(Punctuated::<syn::Ident, Token![,]>::parse_terminated).ok()?;
        let names: Vec<String> =
            names.iter().map(|name| name.to_string().trim_start_matches("r#").to_owned()).collect();
        (!names.is_empty()).then_some(UniqueKeyArg::Fields(names))
    };
    let key = match meta {
        Meta::Path(_) => Some(UniqueKeyArg::Input),
        Meta::List(list) => fields(list),
        Meta::NameValue(pair) if matches!(pair.value, Expr::Path(_)) => {
            Some(UniqueKeyArg::Function(pair.value.to_token_stream()))
        }
        Meta::NameValue(_) => None,
    };
    if key.is_none() {
        diagnostics.add(
            meta,
            "`unique` by the whole input, `unique(account)` by fields of it, or `unique = key`, \
             a function of a reference to it that returns a text",
        );
    }
    key
}

/// One of two words, as the variant that it names.
fn variant(
    meta: &Meta,
    words: [(&'static str, &'static str); 2],
    diagnostics: &mut Diagnostics,
) -> Option<&'static str> {
    let word = match value(meta) {
        Some(Lit::Str(text)) => text.value(),
        _ => String::new(),
    };
    let found = words.iter().find(|(known, _)| *known == word).map(|(_, variant)| *variant);
    if found.is_none() {
        let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        diagnostics.add(meta, format!("write `{name} = \"{}\"` or `{name} = \"{}\"`", words[0].0, words[1].0));
    }
    found
}

fn lifetime(meta: &Meta, diagnostics: &mut Diagnostics) -> Option<Duration> {
    match deadline(meta) {
        Some(DeadlineArg::After(lifetime)) => Some(lifetime),
        Some(DeadlineArg::Never | DeadlineArg::Default) | None => {
            diagnostics.add(meta, "a lifetime needs a unit, and an end: `unique_for = \"24h\"` (ms, s, m, h)");
            None
        }
    }
}

fn version(meta: &Meta, diagnostics: &mut Diagnostics) -> u32 {
    let number = match value(meta) {
        Some(Lit::Int(number)) => LitInt::base10_parse::<u32>(number).ok(),
        _ => None,
    };
    number.filter(|number| *number > 0).unwrap_or_else(|| {
        diagnostics.add(meta, "a version is a whole number from 1: `version = 2`");
        1
    })
}

fn block(meta: &Meta, diagnostics: &mut Diagnostics) -> bool {
    const RULE: &str =
        "only WebSocket can be blocked: `block(websocket)`; an action without a method has no HTTP route";
    let names = match meta {
        Meta::List(list) => list.parse_args_with(Punctuated::<syn::Ident, Token![,]>::parse_terminated).ok(),
        Meta::Path(_) | Meta::NameValue(_) => None,
    };
    let Some(names) = names.filter(|names| !names.is_empty()) else {
        diagnostics.add(meta, RULE);
        return false;
    };
    for name in names.iter().filter(|name| *name != "websocket") {
        diagnostics.add(name, RULE);
    }
    true
}

fn check_name(name: &LitStr, diagnostics: &mut Diagnostics) {
    let text = name.value();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
    if text.is_empty() || text.len() > 100 || !text.bytes().all(allowed) {
        diagnostics.add(name, "a name is 1 to 100 characters of A-Z a-z 0-9 : . _ -");
    }
}

fn check_path(path: &LitStr, diagnostics: &mut Diagnostics) {
    let text = path.value();
    if !text.starts_with('/') {
        return diagnostics.add(path, "a path starts with `/`");
    }
    let segments: Vec<&str> = text.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        if let Some(name) = segment.strip_prefix(':') {
            diagnostics.add(path, format!("write `{{{name}}}` for a parameter, not `:{name}`"));
        } else if segment.contains(['{', '}']) {
            let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
            let name = inner.strip_prefix('*').unwrap_or(inner);
            if name.is_empty() || name.contains(['{', '}', '*']) {
                diagnostics.add(path, "a parameter is a whole segment with a name: `{name}` or `{*rest}`");
            } else if inner.starts_with('*') && index + 1 != segments.len() {
                diagnostics.add(path, "`{*rest}` is the last segment of a path");
            }
        }
    }
}

pub(crate) fn deadline(meta: &Meta) -> Option<DeadlineArg> {
    let Some(Lit::Str(text)) = value(meta) else { return None };
    let written = text.value();
    if written == "0" {
        return Some(DeadlineArg::Never);
    }
    time(&written).map(DeadlineArg::After)
}

/// A time with its unit; none of zero.
pub(crate) fn time(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let ms = digits.trim().parse::<u64>().ok()?.checked_mul(unit)?;
    (ms > 0).then(|| Duration::from_millis(ms))
}
