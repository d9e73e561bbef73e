//! The arguments of an attribute, with their spans; every mistake is collected before giving up.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Error, Expr, ExprLit, Lit, LitInt, LitStr, Meta, Token};

/// Mistakes, so far.
#[derive(Default)]
pub(crate) struct Mistakes(Option<Error>);

impl Mistakes {
    /// Adds a sentence about `place`, all of which is underlined; about nothing means about the attribute.
    pub(crate) fn add(&mut self, place: impl ToTokens, message: impl std::fmt::Display) {
        self.take(Error::new_spanned(place, message));
    }

    /// Adds what the parser says.
    pub(crate) fn take(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// What the compiler is to print, if anything.
    pub(crate) fn errors(self) -> Option<TokenStream> {
        self.0.map(Error::into_compile_error)
    }
}

/// A route as it is written.
pub(crate) struct RouteArg {
    pub(crate) method: &'static str,
    pub(crate) path: Option<LitStr>,
}

/// A deadline as it is written.
#[derive(Clone, Copy)]
pub(crate) enum DeadlineArg {
    Default,
    Never,
    After(Duration),
}

/// What an attribute says.
pub(crate) struct Arguments {
    pub(crate) name: Option<LitStr>,
    pub(crate) version: u32,
    pub(crate) routes: Vec<RouteArg>,
    pub(crate) deadline: DeadlineArg,
    pub(crate) block_websocket: bool,
    pub(crate) internal: bool,
    pub(crate) cancel_on_disconnect: bool,
}

const METHODS: [(&str, &str); 5] =
    [("get", "Get"), ("post", "Post"), ("put", "Put"), ("patch", "Patch"), ("delete", "Delete")];

/// What `#[action]` understands.
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
    "internal",
    "cancel_on_disconnect",
];

/// What `#[remote]` understands.
pub(crate) const REMOTE: &[&str] = &["name", "deadline"];

/// Reads the arguments of an attribute that understands `known`.
pub(crate) fn parse(tokens: TokenStream, known: &[&str], mistakes: &mut Mistakes) -> Arguments {
    let mut arguments = Arguments {
        name: None,
        version: 1,
        routes: Vec::new(),
        deadline: DeadlineArg::Default,
        block_websocket: false,
        internal: false,
        cancel_on_disconnect: false,
    };
    let metas = match Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens) {
        Ok(metas) => metas,
        Err(error) => {
            mistakes.take(error);
            return arguments;
        }
    };
    let mut seen: Vec<String> = Vec::new();
    for meta in &metas {
        let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        if !known.contains(&name.as_str()) {
            mistakes.add(meta.path(), unknown(&name, known));
            continue;
        }
        if method(&name).is_none() && seen.contains(&name) {
            mistakes.add(meta, format!("`{name}` is given twice"));
        }
        seen.push(name.clone());
        arguments.take(&name, meta, mistakes);
    }
    let opens = |meta: &&Meta| {
        meta.path().get_ident().is_some_and(|name| name == "block" || method(&name.to_string()).is_some())
    };
    for meta in metas.iter().filter(opens).filter(|_| arguments.internal) {
        mistakes.add(meta, "no client reaches an `internal` action: drop this, or `internal`");
    }
    arguments
}

impl Arguments {
    fn take(&mut self, name: &str, meta: &Meta, mistakes: &mut Mistakes) {
        match name {
            "name" => {
                self.name = text(meta, mistakes);
                if let Some(name) = &self.name {
                    check_name(name, mistakes);
                }
            }
            "version" => self.version = version(meta, mistakes),
            "deadline" => {
                self.deadline = deadline(meta).unwrap_or_else(|| {
                    mistakes.add(meta, "a deadline has its unit: `deadline = \"5s\"` (ms, s, m, h); \"0\" means none");
                    DeadlineArg::Default
                });
            }
            "block" => self.block_websocket = block(meta, mistakes),
            "internal" => self.internal = flag(meta, mistakes),
            "cancel_on_disconnect" => self.cancel_on_disconnect = flag(meta, mistakes),
            verb => {
                let Some(method) = method(verb) else { return };
                let path = match meta {
                    Meta::Path(_) => None,
                    _ => text(meta, mistakes),
                };
                if let Some(path) = &path {
                    check_path(path, mistakes);
                }
                self.routes.push(RouteArg { method, path });
            }
        }
    }
}

/// What a verb is called in the expansion.
fn method(verb: &str) -> Option<&'static str> {
    METHODS.iter().find(|(name, _)| *name == verb).map(|(_, method)| *method)
}

fn unknown(name: &str, known: &[&str]) -> String {
    match name {
        "head" if known.contains(&"get") => return "`get` answers HEAD as well".to_owned(),
        "options" if known.contains(&"get") => return "the server answers OPTIONS itself".to_owned(),
        _ => {}
    }
    let near = known
        .iter()
        .map(|known| (distance(name, known), known))
        .min()
        .filter(|(far, _)| *far <= (name.len() / 3).max(1));
    match near {
        Some((_, known)) => format!("there is no argument `{name}`; did you mean `{known}`?"),
        None => format!("there is no argument `{name}`; there are {}", known.join(", ")),
    }
}

/// How many letters one word is away from another.
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

fn text(meta: &Meta, mistakes: &mut Mistakes) -> Option<LitStr> {
    match value(meta) {
        Some(Lit::Str(text)) => Some(text.clone()),
        _ => {
            let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
            mistakes.add(meta, format!("write `{name} = \"…\"`"));
            None
        }
    }
}

fn flag(meta: &Meta, mistakes: &mut Mistakes) -> bool {
    if !matches!(meta, Meta::Path(_)) {
        mistakes.add(meta, "this argument takes no value");
    }
    true
}

fn value(meta: &Meta) -> Option<&Lit> {
    match meta {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(ExprLit { lit, .. }) => Some(lit),
            _ => None,
        },
        _ => None,
    }
}

fn version(meta: &Meta, mistakes: &mut Mistakes) -> u32 {
    let number = match value(meta) {
        Some(Lit::Int(number)) => LitInt::base10_parse::<u32>(number).ok(),
        _ => None,
    };
    number.filter(|number| *number > 0).unwrap_or_else(|| {
        mistakes.add(meta, "a version is a whole number from 1: `version = 2`");
        1
    })
}

fn block(meta: &Meta, mistakes: &mut Mistakes) -> bool {
    const RULE: &str = "only one transport can be blocked: `block(websocket)`; HTTP is opened by naming a verb";
    let names = match meta {
        Meta::List(list) => list.parse_args_with(Punctuated::<syn::Ident, Token![,]>::parse_terminated).ok(),
        Meta::Path(_) | Meta::NameValue(_) => None,
    };
    let Some(names) = names.filter(|names| !names.is_empty()) else {
        mistakes.add(meta, RULE);
        return false;
    };
    for name in names.iter().filter(|name| *name != "websocket") {
        mistakes.add(name, RULE);
    }
    true
}

fn check_name(name: &LitStr, mistakes: &mut Mistakes) {
    let text = name.value();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":._-".contains(&byte);
    if text.is_empty() || text.len() > 100 || !text.bytes().all(allowed) {
        mistakes.add(name, "a name is 1 to 100 characters of A-Z a-z 0-9 : . _ -");
    }
}

fn check_path(path: &LitStr, mistakes: &mut Mistakes) {
    let text = path.value();
    if !text.starts_with('/') {
        return mistakes.add(path, "a path starts with `/`");
    }
    let segments: Vec<&str> = text.split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        if let Some(name) = segment.strip_prefix(':') {
            mistakes.add(path, format!("write `{{{name}}}` for a parameter, not `:{name}`"));
        } else if segment.contains(['{', '}']) {
            let inner = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
            let name = inner.strip_prefix('*').unwrap_or(inner);
            if name.is_empty() || name.contains(['{', '}', '*']) {
                mistakes.add(path, "a parameter is a whole segment with a name: `{name}` or `{*rest}`");
            } else if inner.starts_with('*') && index + 1 != segments.len() {
                mistakes.add(path, "`{*rest}` is the last segment of a path");
            }
        }
    }
}

fn deadline(meta: &Meta) -> Option<DeadlineArg> {
    let Some(Lit::Str(text)) = value(meta) else { return None };
    let written = text.value();
    if written == "0" {
        return Some(DeadlineArg::Never);
    }
    let digits = written.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &written[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let ms = digits.trim().parse::<u64>().ok()?.checked_mul(unit)?;
    (ms > 0).then(|| DeadlineArg::After(Duration::from_millis(ms)))
}
