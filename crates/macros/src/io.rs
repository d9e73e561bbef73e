//! The expansion of `#[input]`, `#[output]` and `#[session]`: derives, with their paths through the facade.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, Data, DeriveInput, Field, Fields};

use crate::attr::Diagnostics;
use crate::rules;

/// Which of the attributes is expanded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Input,
    Output,
    Session,
}

/// Expands the attribute, or returns the errors for the compiler to print.
///
/// The type is expanded even if there are errors: otherwise each use of it would be reported as a further error.
pub(crate) fn expand(role: Role, arguments: TokenStream, item: TokenStream) -> Result<TokenStream, TokenStream> {
    let mut diagnostics = Diagnostics::default();
    if !arguments.is_empty() {
        diagnostics.add(&arguments, "this attribute takes no arguments");
    }
    let mut item: DeriveInput = match syn::parse2(item.clone()) {
        Ok(item) => item,
        Err(error) => {
            diagnostics.push(match syn::parse2::<syn::Item>(item.clone()) {
                Ok(_) => syn::Error::new(error.span(), "this attribute belongs on a struct or an enum"),
                Err(_) => error,
            });
            let diagnostics = diagnostics.into_tokens();
            return Err(quote!(#diagnostics #item));
        }
    };
    if let Data::Union(union) = &item.data {
        diagnostics.add(union.union_token, "a union has no JSON: use an enum");
        let diagnostics = diagnostics.into_tokens();
        return Err(quote!(#diagnostics #item));
    }
    let is_struct = matches!(item.data, Data::Struct(_));
    if role == Role::Input && is_struct {
        refuse_renames(&item.attrs, &mut diagnostics);
    }
    each_field(&mut item, |field| {
        if role != Role::Session {
            mark_secrets(field, &mut diagnostics);
        }
        if role == Role::Input && is_struct {
            refuse_renames(&field.attrs, &mut diagnostics);
        }
    });
    let written = written_derives(&item.attrs);
    let missing = |name: &str| !written.iter().any(|derive| derive == name);
    let mut derives = Vec::new();
    if missing("Serialize") {
        derives.push(quote!(::phalanx::__private::serde::Serialize));
    }
    if missing("Deserialize") {
        derives.push(quote!(::phalanx::__private::serde::Deserialize));
    }
    let has_schema = role != Role::Session;
    if has_schema && missing("JsonSchema") {
        derives.push(quote!(::phalanx::__private::schemars::JsonSchema));
    }
    let schemars = has_schema.then(|| quote!(#[schemars(crate = "::phalanx::__private::schemars")]));
    let validates = role == Role::Input && missing("Validate");
    let derives_validate = validates && is_struct && rules::check(&mut item, &mut diagnostics);
    let validate = derives_validate
        .then(|| quote!(#[derive(::phalanx::__private::validator::Validate)] #[validate(crate = "::phalanx::__private::validator")]));
    let by_hand = (validates && !derives_validate).then(|| validates_always(&item));
    let last = (role == Role::Input).then(|| last_parameter(&item));
    let diagnostics = diagnostics.into_tokens();
    Ok(quote! {
        #diagnostics
        #[derive(#(#derives),*)]
        #[serde(crate = "::phalanx::__private::serde")]
        #schemars
        #validate
        #item
        #by_hand
        #last
    })
}

/// The last parameter of a function that is its input.
fn last_parameter(item: &DeriveInput) -> TokenStream {
    let name = &item.ident;
    let (generics, arguments, clause) = item.generics.split_for_impl();
    quote! {
        impl #generics ::phalanx::__private::LastParameter for #name #arguments #clause {
            type Input = Self;
            type Role = ::phalanx::__private::InputRole;
        }
    }
}

/// `validator` derives for structs only: an enum is valid once it decodes. A struct with a wrong rule, which is reported, has
/// none, so that its uses are not reported too.
fn validates_always(item: &DeriveInput) -> TokenStream {
    let name = &item.ident;
    let (generics, arguments, clause) = item.generics.split_for_impl();
    quote! {
        impl #generics ::phalanx::__private::validator::Validate for #name #arguments #clause {
            fn validate(&self) -> ::core::result::Result<(), ::phalanx::__private::validator::ValidationErrors> {
                ::core::result::Result::Ok(())
            }
        }
    }
}

fn each_field(item: &mut DeriveInput, mut visit: impl FnMut(&mut Field)) {
    let mut fields = |fields: &mut Fields| fields.iter_mut().for_each(&mut visit);
    match &mut item.data {
        Data::Struct(data) => fields(&mut data.fields),
        Data::Enum(data) => data.variants.iter_mut().for_each(|variant| fields(&mut variant.fields)),
        Data::Union(_) => {}
    }
}

/// Turns `#[secret]` into a mark in the schema. The log hides the parameter of that name, so the field needs exactly one.
fn mark_secrets(field: &mut Field, diagnostics: &mut Diagnostics) {
    let other_name = ["alias", "flatten"].into_iter().find(|word| mentions(&field.attrs, word));
    for attr in field.attrs.iter_mut().filter(|attr| attr.path().is_ident("secret")) {
        if field.ident.is_none() {
            diagnostics.add(&*attr, "the log hides a secret by its name: give the field one");
        } else if let Some(word) = other_name {
            diagnostics.add(&*attr, format!("the log hides a secret by the name of its field, which `{word}` changes"));
        }
        *attr = syn::parse_quote!(#[schemars(extend("writeOnly" = true))]);
    }
}

fn mentions(attrs: &[Attribute], word: &str) -> bool {
    let mut serde = attrs.iter().filter(|attr| attr.path().is_ident("serde"));
    serde.any(|attr| attr.to_token_stream().to_string().contains(word))
}

/// Refuses renamed fields: validators report a field by its Rust name, so that must be its name on the wire.
fn refuse_renames(attrs: &[Attribute], diagnostics: &mut Diagnostics) {
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("serde")) {
        let text = attr.to_token_stream().to_string();
        if text.contains("rename") {
            let message = "name the field as on the wire: validators report it by its Rust name";
            diagnostics.add(attr, message);
        }
    }
}

fn written_derives(attrs: &[Attribute]) -> Vec<String> {
    let mut names = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("derive")) {
        // If it is not a list of paths, the compiler reports that itself.
        let _ = attr.parse_nested_meta(|meta| {
            names.extend(meta.path.segments.last().map(|last| last.ident.to_string()));
            Ok(())
        });
    }
    names
}
