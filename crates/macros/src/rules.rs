//! The rules of an input: `#[validate(..)]` on its fields.
//!
//! Their derive reports a name that it does not know, and then implements nothing, which the compiler reports at each use of
//! the type. So names are checked before it, and a type with a wrong one gets no derive.

use syn::{Attribute, Data, DeriveInput, Expr, Token, token};

use crate::attr::{Diagnostics, nearest};

/// The rules, each with its arguments beside the message and the code.
const RULES: [(&str, &[&str]); 15] = [
    ("length", &["min", "max", "equal"]),
    ("range", &["min", "max", "exclusive_min", "exclusive_max"]),
    ("email", &[]),
    ("url", &[]),
    ("ip", &["v4", "v6"]),
    ("regex", &["path"]),
    ("contains", &["pattern"]),
    ("does_not_contain", &["pattern"]),
    ("must_match", &["other"]),
    ("required", &[]),
    ("credit_card", &[]),
    ("non_control_character", &[]),
    ("custom", &["function", "use_context"]),
    ("nested", &[]),
    ("skip", &[]),
];

/// Checks the names in the rules of a struct. If one is wrong, takes all rules off it, and returns `false`.
pub(crate) fn check(item: &mut DeriveInput, diagnostics: &mut Diagnostics) -> bool {
    let Data::Struct(data) = &mut item.data else { return true };
    let mut is_right = true;
    for attr in data.fields.iter().flat_map(|field| &field.attrs).filter(|attr| is_rule(attr)) {
        is_right &= check_rules(attr, diagnostics);
    }
    if !is_right {
        item.attrs.retain(|attr| !is_rule(attr));
        data.fields.iter_mut().for_each(|field| field.attrs.retain(|attr| !is_rule(attr)));
    }
    is_right
}

fn is_rule(attr: &Attribute) -> bool {
    attr.path().is_ident("validate")
}

/// The form of the rules is the derive's to check: parsing ends where it is not the usual one.
fn check_rules(attr: &Attribute, diagnostics: &mut Diagnostics) -> bool {
    let mut is_right = true;
    let mut report = |path: &syn::Path, noun: &str, known: &[&str]| {
        let name = path.get_ident().map(ToString::to_string).unwrap_or_default();
        if !known.contains(&&*name) {
            is_right = false;
            diagnostics.add(path, nearest(noun, &name, known));
        }
        name
    };
    let _ = attr.parse_nested_meta(|rule| {
        let name = report(&rule.path, "rule", &RULES.map(|(rule, _)| rule));
        let arguments = RULES.iter().find(|(rule, _)| *rule == name).map(|(_, arguments)| *arguments);
        if rule.input.peek(token::Paren) {
            return rule.parse_nested_meta(|argument| {
                if let Some(own) = arguments {
                    report(&argument.path, "argument", &[own, &["message", "code"]].concat());
                }
                skip_value(&argument)
            });
        }
        skip_value(&rule)
    });
    is_right
}

fn skip_value(meta: &syn::meta::ParseNestedMeta<'_>) -> syn::Result<()> {
    if meta.input.peek(Token![=]) { meta.value()?.parse::<Expr>().map(drop) } else { Ok(()) }
}
