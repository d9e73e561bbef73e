//! What `#[remote]` expands to.

use proc_macro2::TokenStream;
use quote::quote;

use crate::action::Parts;
use crate::attr::{self, Mistakes};
use crate::signature;

/// Expands `#[remote]`.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let mut mistakes = Mistakes::default();
    let arguments = attr::parse(arguments, attr::REMOTE, &mut mistakes);
    let signature = signature::read(syn::parse2(item)?, "a remote method", &mut mistakes);
    mistakes.check()?;
    let parts = Parts::of(&signature, &arguments);
    let Parts { function, name, input, output, description, deadline, require, run, item, marker, conditions } = parts;
    Ok(quote! {
        #item
        #marker
        #(#conditions)*
        impl ::phalanx::Remote for #function {
            type Input = #input;
            type Output = #output;
            const DEF: ::phalanx::RemoteDef = ::phalanx::RemoteDef {
                name: #name,
                description: #description,
                deadline: #deadline,
                input: ::phalanx::input_schema::<#input>,
                output: <#output as ::phalanx::IntoAnswer>::schema,
                require: #require,
                run: #run,
            };
        }
    })
}
