//! The arguments of `#[action]` that are sizes.

use syn::{Lit, Meta};

use crate::attr::{Diagnostics, value};

/// A number of bytes with its unit.
pub(crate) fn parse(meta: &Meta, diagnostics: &mut Diagnostics) -> Option<u64> {
    let bytes = match value(meta) {
        Some(Lit::Str(text)) => bytes_of(&text.value()),
        _ => None,
    };
    if bytes.is_none() {
        let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        diagnostics.add(meta, format!("a size needs a unit, and is not 0: `{name} = \"64KiB\"` (B, KiB, MiB, GiB)"));
    }
    bytes
}

fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.trim().parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}
