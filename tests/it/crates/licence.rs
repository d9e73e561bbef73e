//! Checks a package's licence expression against a list of licences.

use std::iter::Peekable;
use std::str::SplitWhitespace;

/// Whether the listed licences satisfy the expression. `OR` binds weaker than `AND`; the older way to write `OR` is a
/// slash. An exception after `WITH` belongs to its licence. An expression that cannot be parsed is not allowed.
pub(crate) fn allowed(expression: &str, list: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    any(&mut words, list) == Some(true) && words.next().is_none()
}

type Words<'a> = Peekable<SplitWhitespace<'a>>;

fn any(words: &mut Words<'_>, list: &[&str]) -> Option<bool> {
    let mut met = all(words, list)?;
    while words.next_if_eq(&"OR").is_some() {
        met |= all(words, list)?;
    }
    Some(met)
}

fn all(words: &mut Words<'_>, list: &[&str]) -> Option<bool> {
    let mut met = one(words, list)?;
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, list)?;
    }
    Some(met)
}

fn one(words: &mut Words<'_>, list: &[&str]) -> Option<bool> {
    if words.next_if_eq(&"(").is_some() {
        let met = any(words, list)?;
        return (words.next()? == ")").then_some(met);
    }
    let licence = words.next()?;
    if words.next_if_eq(&"WITH").is_some() {
        let whole = format!("{licence} WITH {}", words.next()?);
        return Some(list.contains(&whole.as_str()));
    }
    Some(list.contains(&licence))
}

#[test]
fn a_licence_expression_is_checked_against_the_list() {
    fn check(expression: &str, expected: bool) {
        assert_eq!(allowed(expression, &["Apache-2.0", "MIT", "Unicode-3.0"]), expected, "{expression:?}");
    }
    check("MIT", true);
    check("MIT OR Apache-2.0", true);
    check("GPL-3.0 OR MIT", true);
    check("GPL-3.0/MIT", true);
    check("GPL-3.0 / MIT", true);
    check("(MIT OR GPL-3.0) AND Unicode-3.0", true);
    check("GPL-3.0 OR MIT AND Unicode-3.0", true);
    check("Apache-2.0 WITH LLVM-exception OR Apache-2.0", true);
    check("GPL-3.0", false);
    check("MIT AND GPL-3.0", false);
    check("GPL-3.0 AND MIT OR GPL-2.0", false);
    check("MIT AND (GPL-3.0 OR GPL-2.0)", false);
    check("Apache-2.0 WITH LLVM-exception", false);
    check("none", false);
    check("", false);
    check("(MIT", false);
    check("MIT)", false);
    check("MIT OR", false);
    check("MIT AND", false);
    check("MIT Apache-2.0", false);
}
