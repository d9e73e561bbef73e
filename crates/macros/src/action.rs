//! The expansion of `#[action]`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{LitStr, Type};

use crate::attr::{Arguments, DeadlineArg};
use crate::signature::{self, DefinitionKind, FunctionShape};

/// Expands `#[action]`, or returns its errors for the compiler to print.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, TokenStream> {
    let (arguments, signature) = signature::read(DefinitionKind::Action, arguments, item)?;
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
    let (version, cross_site) = (arguments.version, arguments.cross_site);
    let routes = arguments.routes.iter().map(|route| {
        let method = format_ident!("{}", route.method);
        let path = route.path.as_ref().map_or_else(String::new, LitStr::value);
        quote!(::phalanx::__private::Route { method: ::phalanx::__private::Method::#method, path: #path })
    });
    let exposure = match (arguments.internal, arguments.block_websocket) {
        (true, _) => quote!(Internal),
        (false, true) => quote!(HttpOnly),
        (false, false) => quote!(Public),
    };
    let body = body_rules(&arguments);
    let on_disconnect = if arguments.cancel_on_disconnect { quote!(Cancel) } else { quote!(Finish) };
    Ok(quote! {
        #item
        #marker
        #(#conditions)*
        impl ::phalanx::__private::Action for #function {
            #types
            const DEF: ::phalanx::__private::ActionDef = ::phalanx::__private::ActionDef {
                name: #name,
                version: #version,
                description: #description,
                routes: &[#(#routes),*],
                exposure: ::phalanx::__private::Exposure::#exposure,
                cross_site: #cross_site,
                deadline: #deadline,
                on_disconnect: ::phalanx::__private::OnDisconnect::#on_disconnect,
                body: #body,
                input: ::phalanx::__private::input_schema::<#input>,
                output: <#output as ::phalanx::__private::IntoAnswer>::schema,
                require: #require,
                run: #run,
            };
        }
    })
}

/// The parts that the expansions of actions and of remote methods share.
pub(crate) struct ExpansionParts<'a> {
    pub(crate) function: &'a Ident,
    pub(crate) name: String,
    pub(crate) input: TokenStream,
    pub(crate) output: TokenStream,
    /// `Input` and `Output`, each with the span of its type in the signature: the compiler reports a private type there.
    pub(crate) types: TokenStream,
    pub(crate) description: &'a str,
    pub(crate) deadline: TokenStream,
    pub(crate) require: TokenStream,
    pub(crate) run: TokenStream,
    pub(crate) item: &'a syn::ItemFn,
    pub(crate) marker: TokenStream,
    pub(crate) conditions: &'a [syn::Attribute],
}

impl<'a> ExpansionParts<'a> {
    pub(crate) fn of(signature: &'a FunctionShape, arguments: &Arguments) -> Self {
        let function = &signature.item.sig.ident;
        let name = arguments.name.as_ref().map_or_else(|| function.to_string(), LitStr::value);
        let input =
            signature.input.as_ref().map_or_else(|| quote!(::phalanx::__private::NoInput), |input| quote!(#input));
        let returns = &signature.returns;
        let output = quote_spanned!(returns.span()=> <#returns as ::phalanx::__private::ActionResult>::Value);
        let span = signature.input.as_ref().map_or_else(Span::call_site, Spanned::span);
        let mut types = quote_spanned!(span=> type Input = #input;);
        types.extend(quote_spanned!(returns.span()=> type Output = #output;));
        let conditions = &signature.conditions[..];
        let visibility = &signature.item.vis;
        let doc = format!("The type of the function [`{function}()`], for `ctx.call::<{function}>(..)` and the like.");
        let marker = quote! {
            #[doc = #doc]
            #(#conditions)*
            #[derive(Debug)]
            #[allow(non_camel_case_types)]
            #visibility struct #function {}
        };
        Self {
            function,
            name,
            input,
            output,
            types,
            description: &signature.description,
            deadline: deadline(arguments.deadline),
            require: require(&signature.guards),
            run: run(signature),
            item: &signature.item,
            marker,
            conditions,
        }
    }
}

fn deadline(deadline: DeadlineArg) -> TokenStream {
    match deadline {
        DeadlineArg::Default => quote!(::phalanx::__private::Deadline::Default),
        DeadlineArg::Never => quote!(::phalanx::__private::Deadline::Never),
        DeadlineArg::After(time) => {
            let ms = time.as_millis() as u64;
            quote!(::phalanx::__private::Deadline::After(::core::time::Duration::from_millis(#ms)))
        }
    }
}

fn body_rules(arguments: &Arguments) -> TokenStream {
    let bound = |bytes: Option<u64>| {
        bytes.map_or_else(|| quote!(::core::option::Option::None), |bytes| quote!(::core::option::Option::Some(#bytes)))
    };
    let (max_body, max_upload, is_raw) = (bound(arguments.max_body), bound(arguments.max_upload), arguments.raw_body);
    quote!(::phalanx::__private::BodyRules { max_body: #max_body, max_upload: #max_upload, is_raw: #is_raw })
}

/// Each guard has the span of its parameter, so that a missing `FromContext` is reported there.
fn require(guards: &[Type]) -> TokenStream {
    let each = guards.iter().map(
        |guard| quote_spanned!(guard.span()=> <#guard as ::phalanx::__private::FromContext>::require(requirements);),
    );
    if guards.is_empty() { quote!(|_| {}) } else { quote!(|requirements| { #(#each)* }) }
}

/// The closure that calls the function: guards, body, input, the guards after the body, function. Its variables are
/// hygienic (`mixed_site`): an action may have the same name as one.
fn run(signature: &FunctionShape) -> TokenStream {
    let function = &signature.item.sig.ident;
    let local = |name: &str| Ident::new(name, Span::mixed_site());
    let (ctx, body, outcome) = (local("ctx"), local("body"), local("outcome"));
    let params = local(if signature.input.is_some() { "params" } else { "_params" });
    let names: Vec<_> = (0..signature.guards.len()).map(|index| local(&format!("guard_{index}"))).collect();
    let guards = || names.iter().zip(&signature.guards);
    let before = guards().map(|(name, guard)| {
        quote_spanned! {guard.span()=>
            let #name = if <#guard as ::phalanx::__private::FromContext>::AFTER_BODY {
                ::core::option::Option::None
            } else {
                ::core::option::Option::Some(<#guard as ::phalanx::__private::FromContext>::from_context(&#ctx).await?)
            };
        }
    });
    let after = guards().map(|(name, guard)| {
        quote_spanned! {guard.span()=>
            let #name = match #name {
                ::core::option::Option::Some(#name) => #name,
                ::core::option::Option::None => <#guard as ::phalanx::__private::FromContext>::from_context(&#ctx).await?,
            };
        }
    });
    let input = local("input");
    let decode = signature
        .input
        .as_ref()
        .map(|ty| quote_spanned!(ty.span()=> let #input = ::phalanx::__private::Params::decode::<#ty>(&#params)?;));
    let input = signature.input.as_ref().map(|_| quote!(, #input));
    // All tokens share the span of the return type. With others, an error in that type, which is reported where it is
    // `Output`, would be reported a second time here.
    let returned = Ident::new("returned", signature.returns.span());
    let answer = quote_spanned!(signature.returns.span()=> ::phalanx::__private::ActionResult::outcome(#returned));
    quote! {
        |#ctx, #body| ::phalanx::__private::answering(async move {
            #(#before)*
            let #params = match ::phalanx::__private::CallBody::params(#body, &#ctx).await {
                ::core::result::Result::Ok(#params) => #params,
                ::core::result::Result::Err(#outcome) => return #outcome,
            };
            #decode
            #(#after)*
            let #returned = #function(#ctx #(, #names)* #input).await;
            #answer
        })
    }
}
