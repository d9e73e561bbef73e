//! The shape of a function: its context, guards, input and return type.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{Attribute, Expr, ExprLit, FnArg, ItemFn, Lit, Meta, PatType, ReturnType, Type};

use crate::attr::{self, Arguments, Diagnostics};

/// The definition that a function is expanded to.
#[derive(Clone, Copy)]
pub(crate) enum DefinitionKind {
    Action,
    Remote,
    Task,
}

impl DefinitionKind {
    fn noun(self) -> &'static str {
        match self {
            Self::Action => "an action",
            Self::Remote => "a remote method",
            Self::Task => "a task",
        }
    }

    /// The type of its context, and that of the other kinds.
    fn contexts(self) -> (&'static str, &'static str) {
        match self {
            Self::Action | Self::Remote => ("Context", "TaskContext"),
            Self::Task => ("TaskContext", "Context"),
        }
    }

    fn known(self) -> &'static [&'static str] {
        match self {
            Self::Action => attr::ACTION,
            Self::Remote => attr::REMOTE,
            Self::Task => attr::TASK,
        }
    }
}

/// A function that can be an action, a remote method or a task.
pub(crate) struct FunctionShape {
    pub(crate) item: ItemFn,
    /// Whether its first parameter is the context.
    pub(crate) has_context: bool,
    /// The types of the parameters between the context and the last one.
    pub(crate) guards: Vec<Type>,
    /// The type of the last parameter, unless that is the context: an input or a guard.
    pub(crate) last: Option<Type>,
    pub(crate) returns: Type,
    pub(crate) description: String,
    /// The function's `#[cfg]` attributes, which the generated items need too.
    pub(crate) conditions: Vec<Attribute>,
}

/// Parses an attribute's arguments and the function below it.
///
/// The errors in both are returned as one list, with the function unchanged: without it, each of its calls would be a
/// further error.
pub(crate) fn read(
    kind: DefinitionKind,
    arguments: TokenStream,
    item: TokenStream,
) -> Result<(Arguments, FunctionShape), TokenStream> {
    let mut diagnostics = Diagnostics::default();
    let arguments = attr::parse(arguments, kind.known(), &mut diagnostics);
    let signature = match syn::parse2(item.clone()) {
        Ok(function) => Some(signature(function, kind, &mut diagnostics)),
        Err(error) => {
            diagnostics.push(match syn::parse2::<syn::Item>(item.clone()) {
                Ok(_) => syn::Error::new(error.span(), format!("{} is an `async fn`", kind.noun())),
                Err(_) => error,
            });
            None
        }
    };
    match (diagnostics.into_tokens(), signature) {
        (None, Some(signature)) => Ok((arguments, signature)),
        (diagnostics, _) => Err(quote!(#diagnostics #item)),
    }
}

/// Parses a function, collecting every reason why it cannot be of that kind.
fn signature(item: ItemFn, kind: DefinitionKind, diagnostics: &mut Diagnostics) -> FunctionShape {
    let noun = kind.noun();
    let signature = &item.sig;
    if signature.asyncness.is_none() {
        diagnostics.add(signature.fn_token, format!("{noun} is an `async fn`"));
    }
    if let Some(constness) = &signature.constness {
        diagnostics.add(constness, format!("{noun} cannot be `const`"));
    }
    if let Some(abi) = &signature.abi {
        diagnostics.add(abi, format!("{noun} cannot be `extern`"));
    }
    if let syn::Safety::Unsafe(unsafety) = &signature.safety {
        diagnostics.add(unsafety, format!("{noun} cannot be `unsafe`"));
    }
    if !signature.generics.params.is_empty() {
        diagnostics.add(&signature.generics, format!("{noun} cannot be generic: each name means one function"));
    }
    let returns = match &signature.output {
        ReturnType::Type(_, returns) => (**returns).clone(),
        ReturnType::Default => {
            diagnostics.add(&signature.ident, format!("{noun} returns a `Result`: `-> Result<(), ActionError>`"));
            syn::parse_quote!(())
        }
    };
    if let Some(file) = module_of_the_same_name(&signature.ident) {
        diagnostics.add(
            &signature.ident,
            format!("the module of `{file}` would hide {noun} of the same name: name the file after its topic"),
        );
    }
    let (has_context, mut guards) = parameters(&item, kind, diagnostics);
    let last = guards.pop();
    let description = description(&item.attrs);
    let conditions = item.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect();
    FunctionShape { has_context, guards, last, returns, description, conditions, item }
}

/// Whether the first parameter is the context, and the types of all others.
fn parameters(item: &ItemFn, kind: DefinitionKind, diagnostics: &mut Diagnostics) -> (bool, Vec<Type>) {
    let (noun, (context, other)) = (kind.noun(), kind.contexts());
    let (mut has_context, mut types) = (false, Vec::new());
    for (index, argument) in item.sig.inputs.iter().enumerate() {
        match argument {
            FnArg::Receiver(receiver) => diagnostics.add(receiver, format!("{noun} has no `self`")),
            FnArg::Typed(PatType { ty, .. }) => match &**ty {
                Type::ImplTrait(_) => diagnostics.add(ty, format!("{noun} cannot be generic: name the type")),
                Type::Reference(_) => {
                    diagnostics.add(ty, format!("{noun} owns its parameters: take the type without `&`"));
                }
                _ if is_named(ty, other) => {
                    diagnostics.add(ty, format!("the context of {noun} is `ctx: {context}`"));
                }
                _ if is_named(ty, context) && index == 0 => has_context = true,
                _ if is_named(ty, context) && matches!(kind, DefinitionKind::Task) => {
                    diagnostics.add(ty, format!("the context of {noun} is its first parameter"));
                }
                _ => types.push((**ty).clone()),
            },
        }
    }
    (has_context, types)
}

/// The file of a function, if its module has the name of the function. The root of a crate is not such a module.
fn module_of_the_same_name(function: &Ident) -> Option<String> {
    if !proc_macro::is_available() {
        return None;
    }
    let file = function.span().unwrap().local_file()?;
    let named = if file.file_stem()? == "mod" { file.parent()?.file_name()? } else { file.file_stem()? };
    let root = std::env::var("CARGO_CRATE_NAME").is_ok_and(|root| function == &root);
    (function == named.to_str()? && !root).then(|| file.file_name().map(|name| name.to_string_lossy().into_owned()))?
}

fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
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
