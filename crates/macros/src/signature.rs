//! The shape of a function: its context, its guards, its input, what it returns.

use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprLit, FnArg, ItemFn, Lit, Meta, PatType, ReturnType, Type};

use crate::attr::Mistakes;

/// A function that can be an action or a remote method.
pub(crate) struct Signature {
    pub(crate) item: ItemFn,
    pub(crate) guards: Vec<Type>,
    pub(crate) input: Option<Type>,
    pub(crate) returns: Type,
    pub(crate) description: String,
    /// `#[cfg]` and its like, which what is written beside the function needs as well.
    pub(crate) conditions: Vec<Attribute>,
}

/// Reads a function, collecting everything that keeps it from being a `what`.
pub(crate) fn read(item: ItemFn, what: &str, mistakes: &mut Mistakes) -> Signature {
    let signature = &item.sig;
    if signature.asyncness.is_none() {
        mistakes.add(signature.fn_token.span, format!("{what} is an `async fn`"));
    }
    if let Some(constness) = &signature.constness {
        mistakes.add(constness.span(), format!("{what} cannot be `const`"));
    }
    if let Some(abi) = &signature.abi {
        mistakes.add(abi.span(), format!("{what} cannot be `extern`"));
    }
    if !signature.generics.params.is_empty() || signature.generics.where_clause.is_some() {
        mistakes.add(signature.generics.span(), format!("{what} cannot be generic: each name means one function"));
    }
    let returns = match &signature.output {
        ReturnType::Type(_, returns) => (**returns).clone(),
        ReturnType::Default => {
            mistakes.add(signature.ident.span(), format!("{what} returns a `Result`: `-> Result<(), ActionError>`"));
            syn::parse_quote!(())
        }
    };
    let mut guards = parameters(&item, what, mistakes);
    let input = guards.pop();
    let description = description(&item.attrs);
    let conditions = item.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect();
    Signature { guards, input, returns, description, conditions, item }
}

/// The types after the context.
fn parameters(item: &ItemFn, what: &str, mistakes: &mut Mistakes) -> Vec<Type> {
    let mut types = Vec::new();
    for (index, argument) in item.sig.inputs.iter().enumerate() {
        match argument {
            FnArg::Receiver(receiver) => mistakes.add(receiver.span(), format!("{what} has no `self`")),
            FnArg::Typed(PatType { ty, .. }) => {
                if matches!(&**ty, Type::ImplTrait(_)) {
                    mistakes.add(ty.span(), format!("{what} cannot be generic: name the type"));
                }
                if index == 0 {
                    if !is_context(ty) {
                        mistakes.add(ty.span(), format!("the first parameter of {what} is `ctx: Context`"));
                    }
                } else {
                    types.push((**ty).clone());
                }
            }
        }
    }
    if item.sig.inputs.is_empty() {
        mistakes.add(item.sig.paren_token.span.join(), format!("the first parameter of {what} is `ctx: Context`"));
    }
    types
}

fn is_context(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Context"))
}

/// The doc comment, line by line, without the space that `///` leaves.
fn description(attrs: &[Attribute]) -> String {
    let lines = attrs.iter().filter(|attr| attr.path().is_ident("doc")).filter_map(|attr| match &attr.meta {
        Meta::NameValue(pair) => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    let lines: Vec<String> = lines.map(|line| line.strip_prefix(' ').unwrap_or(&line).to_owned()).collect();
    lines.join("\n").trim().to_owned()
}
