//! The shape of a function: its context, its guards, its input, what it returns.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{Attribute, Expr, ExprLit, FnArg, ItemFn, Lit, Meta, PatType, ReturnType, Type};

use crate::attr::{self, Arguments, Mistakes};

/// What a function is to become.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Action,
    Remote,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Action => "an action",
            Self::Remote => "a remote method",
        }
    }

    fn known(self) -> &'static [&'static str] {
        match self {
            Self::Action => attr::ACTION,
            Self::Remote => attr::REMOTE,
        }
    }
}

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

/// Reads an attribute's arguments and the function below it.
///
/// What is wrong with either comes back as one list, with the function as it was: calls of it are no second mistake.
pub(crate) fn read(
    kind: Kind,
    arguments: TokenStream,
    item: TokenStream,
) -> Result<(Arguments, Signature), TokenStream> {
    let mut mistakes = Mistakes::default();
    let arguments = attr::parse(arguments, kind.known(), &mut mistakes);
    let signature = match syn::parse2(item.clone()) {
        Ok(function) => Some(signature(function, kind.noun(), &mut mistakes)),
        Err(error) => {
            mistakes.take(match syn::parse2::<syn::Item>(item.clone()) {
                Ok(_) => syn::Error::new(error.span(), format!("{} is an `async fn`", kind.noun())),
                Err(_) => error,
            });
            None
        }
    };
    match (mistakes.errors(), signature) {
        (None, Some(signature)) => Ok((arguments, signature)),
        (mistakes, _) => Err(quote!(#mistakes #item)),
    }
}

/// Reads a function, collecting everything that keeps it from being a `what`.
fn signature(item: ItemFn, what: &str, mistakes: &mut Mistakes) -> Signature {
    let signature = &item.sig;
    if signature.asyncness.is_none() {
        mistakes.add(signature.fn_token, format!("{what} is an `async fn`"));
    }
    if let Some(constness) = &signature.constness {
        mistakes.add(constness, format!("{what} cannot be `const`"));
    }
    if let Some(abi) = &signature.abi {
        mistakes.add(abi, format!("{what} cannot be `extern`"));
    }
    if let syn::Safety::Unsafe(unsafety) = &signature.safety {
        mistakes.add(unsafety, format!("{what} cannot be `unsafe`"));
    }
    if !signature.generics.params.is_empty() {
        mistakes.add(&signature.generics, format!("{what} cannot be generic: each name means one function"));
    }
    let returns = match &signature.output {
        ReturnType::Type(_, returns) => (**returns).clone(),
        ReturnType::Default => {
            mistakes.add(&signature.ident, format!("{what} returns a `Result`: `-> Result<(), ActionError>`"));
            syn::parse_quote!(())
        }
    };
    if let Some(file) = module_of_the_same_name(&signature.ident) {
        mistakes.add(
            &signature.ident,
            format!("the module of `{file}` would hide {what} of its name: name the file after its topic"),
        );
    }
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
            FnArg::Receiver(receiver) => mistakes.add(receiver, format!("{what} has no `self`")),
            FnArg::Typed(PatType { ty, .. }) => {
                if matches!(&**ty, Type::ImplTrait(_)) {
                    mistakes.add(ty, format!("{what} cannot be generic: name the type"));
                }
                if index == 0 {
                    if !is_context(ty) {
                        mistakes.add(ty, format!("the first parameter of {what} is `ctx: Context`"));
                    }
                } else if matches!(&**ty, Type::Reference(_)) {
                    mistakes.add(ty, format!("{what} owns its parameters: take the type without `&`"));
                } else {
                    types.push((**ty).clone());
                }
            }
        }
    }
    if item.sig.inputs.is_empty() {
        mistakes.add(&item.sig.ident, format!("the first parameter of {what} is `ctx: Context`"));
    }
    types
}

/// The file a function stands in, if that is a module named like the function. A crate's root is no such module.
fn module_of_the_same_name(function: &Ident) -> Option<String> {
    if !proc_macro::is_available() {
        return None;
    }
    let file = function.span().unwrap().local_file()?;
    let named = if file.file_stem()? == "mod" { file.parent()?.file_name()? } else { file.file_stem()? };
    let root = std::env::var("CARGO_CRATE_NAME").is_ok_and(|root| function == &root);
    (function == named.to_str()? && !root).then(|| file.file_name().map(|name| name.to_string_lossy().into_owned()))?
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
