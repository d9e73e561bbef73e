//! The expansion of `#[derive(ActionError)]`: how each variant of an enum is answered.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Fields, LitStr, Member, Meta, Token, Variant};

use crate::attr::{self, Diagnostics};

/// The attribute of a variant.
const ATTRIBUTE: &str = "action_error";

/// Expands `#[derive(ActionError)]`, or returns its errors for the compiler to print.
///
/// The conversion is there even if there are errors: otherwise each `?` that needs it would be reported as a further error.
pub(crate) fn expand(item: TokenStream) -> TokenStream {
    let item: DeriveInput = match syn::parse2(item) {
        Ok(item) => item,
        Err(error) => return error.into_compile_error(),
    };
    let mut diagnostics = Diagnostics::default();
    let mut arms = Vec::new();
    match &item.data {
        Data::Enum(data) if data.variants.is_empty() => {
            diagnostics.add(&item.ident, "this enum has no errors: add a variant for each");
        }
        Data::Enum(data) => {
            arms.extend(data.variants.iter().filter_map(|variant| arm(&item, variant, &mut diagnostics)))
        }
        Data::Struct(_) | Data::Union(_) => {
            diagnostics.add(&item.ident, "only enums can be derived: a variant is an error with a kind of its own");
        }
    }
    let name = &item.ident;
    let (generics, arguments, clause) = item.generics.split_for_impl();
    let diagnostics = diagnostics.into_tokens();
    let error = local("error");
    let body = match &diagnostics {
        Some(_) => quote!(::core::unimplemented!()),
        None => quote!(match #error { #(#arms)* }),
    };
    quote! {
        #diagnostics
        #[automatically_derived]
        #[allow(unused_variables, unreachable_patterns, reason = "not all fields are used, and there may be one variant")]
        impl #generics ::core::convert::From<#name #arguments> for ::phalanx::__private::ActionError #clause {
            fn from(#error: #name #arguments) -> Self {
                #body
            }
        }
    }
}

/// A name of the generated code, which no field of the author's can shadow.
fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

/// The arguments of a variant's attribute.
#[derive(Default)]
struct VariantArgs {
    kind: Option<&'static str>,
    code: Option<LitStr>,
    message: Option<LitStr>,
    details: Vec<[LitStr; 3]>,
    is_transparent: bool,
}

/// The fields of a variant, by their names in the generated code.
struct VariantFields {
    pattern: TokenStream,
    /// The cause of the error, for the log.
    source: Option<Ident>,
    /// The faulty fields of an input.
    details: Option<Ident>,
    only: Option<Ident>,
}

/// The arm of the `match` for a variant; `None` if it has errors.
fn arm(item: &DeriveInput, variant: &Variant, diagnostics: &mut Diagnostics) -> Option<TokenStream> {
    let mut own = variant.attrs.iter().filter(|attr| attr.path().is_ident(ATTRIBUTE));
    let Some(attribute) = own.next() else {
        let message =
            format!("how is `{}` answered? write `#[{ATTRIBUTE}(not_found, message = \"…\")]` above it", variant.ident);
        diagnostics.add(&variant.ident, message);
        return None;
    };
    if let Some(second) = own.next() {
        diagnostics.add(second, format!("a variant has one `#[{ATTRIBUTE}(..)]`"));
    }
    let arguments = arguments(attribute, diagnostics)?;
    let (name, enum_name) = (&variant.ident, &item.ident);
    let fields = fields(variant, diagnostics)?;
    let pattern = &fields.pattern;
    if arguments.is_transparent {
        let Some(inner) = &fields.only else {
            diagnostics.add(variant, "a `transparent` variant has one field, which converts into an `ActionError`");
            return None;
        };
        let convert = quote_spanned!(variant.fields.span()=> ::phalanx::__private::IntoActionError::into_action_error);
        return Some(quote!(#enum_name::#name #pattern => #convert(#inner),));
    }
    let kind = Ident::new(arguments.kind?, Span::call_site());
    let error = local("error");
    // With thiserror's attribute the enum is an error itself: its text is the message, or the cause for the log.
    let has_text = variant.attrs.iter().any(|attr| attr.path().is_ident("error"));
    if kind == "Internal" {
        let detail = arguments.details.first().map(|[path, ..]| path);
        let said = [("message", arguments.message.as_ref()), ("code", arguments.code.as_ref()), ("detail", detail)];
        if let Some((name, Some(text))) = said.iter().find(|(_, text)| text.is_some()) {
            let rule = format!("clients get `internal error` alone: remove the {name}, the log has the cause");
            diagnostics.add(text, rule);
            return None;
        }
        if fields.details.is_some() {
            diagnostics.add(&variant.fields, "clients get `internal error` alone: it has no details");
            return None;
        }
        let source = match (&fields.source, has_text) {
            (_, true) => return Some(quote!(#error @ #enum_name::#name { .. } => Self::internal(#error),)),
            (Some(source), false) => quote!(#source),
            (None, false) => {
                let text = format!("{enum_name}::{name}");
                quote!(#text)
            }
        };
        return Some(quote!(#enum_name::#name #pattern => Self::internal(#source),));
    }
    let shown = local("text");
    let text = match &arguments.message {
        Some(text) => formatted(text),
        None if has_text => quote!(#shown),
        None => {
            diagnostics.add(attribute, "what do clients read? add `message = \"…\"`");
            return None;
        }
    };
    let code = arguments.code.as_ref().map_or_else(|| snake_case(&name.to_string()), LitStr::value);
    let mut made = quote!(Self::new(::phalanx::__private::ErrorKind::#kind, #code, #text));
    let listed = arguments.details.iter().map(|[path, code, message]| {
        let (path, message) = (formatted(path), formatted(message));
        quote!(::phalanx::__private::Detail::new(#path, #code, #message))
    });
    match (&fields.details, arguments.details.first()) {
        (Some(_), Some([path, ..])) => {
            diagnostics.add(path, "a variant has its details in a field, or by `detail(..)`: remove one");
            return None;
        }
        (Some(details), None) => made = quote!(#made.with_details(#details)),
        (None, Some(_)) => made = quote!(#made.with_details(::std::vec![#(#listed),*])),
        (None, None) => {}
    }
    if let Some(source) = &fields.source {
        made = quote!(#made.with_source(#source));
    }
    // The text is made before the fields are moved out of the error.
    Some(match &arguments.message {
        None => quote!(#error @ #enum_name::#name { .. } => {
            let #shown = ::std::string::ToString::to_string(&#error);
            match #error { #enum_name::#name #pattern => #made, _ => ::core::unreachable!() }
        }),
        Some(_) => quote!(#enum_name::#name #pattern => #made,),
    })
}

/// Parses `#[action_error(kind, code = "…", message = "…", detail("path", "code", "message"))]`.
fn arguments(attribute: &Attribute, diagnostics: &mut Diagnostics) -> Option<VariantArgs> {
    let mut parsed = VariantArgs::default();
    let list = match attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) {
        Ok(list) => list,
        Err(error) => {
            diagnostics.push(error);
            return None;
        }
    };
    let mut is_sound = true;
    for (index, meta) in list.iter().enumerate() {
        let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
        let mut wrong = |message: String| {
            diagnostics.add(meta, message);
            is_sound = false;
        };
        match name.as_str() {
            "transparent" if index == 0 && list.len() == 1 => parsed.is_transparent = true,
            "transparent" => wrong("a `transparent` variant is answered as its field: it says nothing else".to_owned()),
            "code" | "message" | "detail" if index == 0 => {
                wrong("the kind of the error comes first, such as `not_found`".to_owned());
            }
            "code" | "message" if list.iter().take(index).any(|earlier| earlier.path().is_ident(&name)) => {
                wrong(format!("a variant has one {name}: remove one"));
            }
            _ if index == 0 => match attr::KINDS.iter().find(|(kind, _)| *kind == name) {
                Some((_, kind)) => parsed.kind = Some(kind),
                None => {
                    let kinds: Vec<&str> = attr::KINDS.iter().map(|(kind, _)| *kind).chain(["transparent"]).collect();
                    wrong(attr::nearest("kind", &name, &kinds));
                }
            },
            "code" => match attr::text(meta, diagnostics) {
                Some(code) if is_code(&code.value()) => parsed.code = Some(code),
                Some(code) => {
                    diagnostics.add(code, "a code is of a-z, 0-9 and _, such as `name_taken`: clients match on it");
                    is_sound = false;
                }
                None => is_sound = false,
            },
            "message" => match attr::text(meta, diagnostics) {
                Some(text) => parsed.message = Some(text),
                None => is_sound = false,
            },
            "detail" => match detail(meta) {
                Some(detail) => parsed.details.push(detail),
                None => wrong("write `detail(\"field\", \"code\", \"message\")`".to_owned()),
            },
            _ => wrong(attr::nearest("argument", &name, &["code", "message", "detail"])),
        }
    }
    if list.is_empty() {
        diagnostics.add(attribute, "the kind of the error comes first, such as `not_found`");
        return None;
    }
    is_sound.then_some(parsed)
}

fn detail(meta: &Meta) -> Option<[LitStr; 3]> {
    let Meta::List(list) = meta else { return None };
    let texts = Punctuated::<LitStr, Token![,]>::parse_terminated.parse2(list.tokens.clone()).ok()?;
    Vec::from_iter(texts).try_into().ok()
}

fn is_code(code: &str) -> bool {
    !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// The fields of a variant: `name` as itself, the second of a tuple as `_1`.
fn fields(variant: &Variant, diagnostics: &mut Diagnostics) -> Option<VariantFields> {
    let mut found = VariantFields { pattern: TokenStream::new(), source: None, details: None, only: None };
    let mut names = Vec::new();
    for (index, (field, member)) in variant.fields.iter().zip(variant.fields.members()).enumerate() {
        let name = match member {
            Member::Named(name) => name,
            Member::Unnamed(_) => format_ident!("_{index}"),
        };
        let has = |marks: &[&str]| field.attrs.iter().any(|attr| marks.iter().any(|mark| attr.path().is_ident(mark)));
        // The rules of thiserror for its own attributes.
        if has(&["source", "from"]) || name == "source" {
            found.source = Some(name.clone());
        }
        if has(&["details"]) && found.details.replace(name.clone()).is_some() {
            diagnostics.add(field, "a variant has its details in one field");
            return None;
        }
        names.push(name);
    }
    found.only = (names.len() == 1).then(|| names[0].clone());
    found.pattern = match &variant.fields {
        Fields::Named(_) => quote!({ #(#names),* }),
        Fields::Unnamed(_) => quote!((#(#names),*)),
        Fields::Unit => TokenStream::new(),
    };
    Some(found)
}

/// A text as it stands, or with its `{field}` and `{0}` filled in.
fn formatted(text: &LitStr) -> TokenStream {
    let value = text.value();
    if !value.contains(['{', '}']) {
        return quote!(#text);
    }
    let mut named = String::new();
    let mut characters = value.chars().peekable();
    while let Some(character) = characters.next() {
        named.push(character);
        if character == '{' {
            match characters.peek() {
                Some('{') => named.extend(characters.next()),
                Some(digit) if digit.is_ascii_digit() => named.push('_'),
                _ => {}
            }
        }
    }
    // With the span of the text, in which the names of the fields are found and errors are reported.
    let named = LitStr::new(&named, text.span());
    quote_spanned!(text.span()=> ::std::format!(#named))
}

/// `NoSuchTicket` as `no_such_ticket`.
fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for (index, character) in name.chars().enumerate() {
        if character.is_uppercase() && index > 0 {
            text.push('_');
        }
        text.extend(character.to_lowercase());
    }
    text
}
