//! What `#[remote]` expands to.

use proc_macro2::TokenStream;
use quote::quote;

use crate::action::Parts;
use crate::signature::{self, Kind};

/// Expands `#[remote]`, or says what is wrong with it.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, TokenStream> {
    let (arguments, signature) = signature::read(Kind::Remote, arguments, item)?;
    let parts = Parts::of(&signature, &arguments);
    let Parts { function, name, input, output, types, description, deadline, require, run, item, marker, conditions } =
        parts;
    Ok(quote! {
        #item
        #marker
        #(#conditions)*
        impl ::phalanx::Remote for #function {
            #types
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
