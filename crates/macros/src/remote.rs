//! The expansion of `#[remote]`.

use proc_macro2::TokenStream;
use quote::quote;

use crate::action::ExpansionParts;
use crate::signature::{self, DefinitionKind};

/// Expands `#[remote]`, or returns its errors for the compiler to print.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, TokenStream> {
    let (arguments, signature) = signature::read(DefinitionKind::Remote, arguments, item)?;
    let parts = ExpansionParts::of(&signature, &arguments);
    let ExpansionParts {
        function,
        name,
        input,
        output,
        types,
        description,
        deadline,
        require,
        run,
        item,
        marker,
        conditions,
    } = parts;
    Ok(quote! {
        #item
        #marker
        #(#conditions)*
        impl ::phalanx::__private::Remote for #function {
            #types
            const DEF: ::phalanx::__private::RemoteDef = ::phalanx::__private::RemoteDef {
                name: #name,
                description: #description,
                deadline: #deadline,
                input: ::phalanx::__private::input_schema::<#input>,
                output: <#output as ::phalanx::__private::IntoAnswer>::schema,
                require: #require,
                run: #run,
            };
        }
    })
}
