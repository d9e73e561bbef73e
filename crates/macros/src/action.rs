//! The expansion of `#[action]`.

use std::time::Duration;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{LitStr, Type};

use crate::attr::{Arguments, DeadlineArg};
use crate::limit::LimitArg;
use crate::signature::{self, DefinitionKind, FunctionShape};

/// Expands `#[action]`, or returns its errors for the compiler to print.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, TokenStream> {
    let (arguments, signature) = signature::read(DefinitionKind::Action, arguments, item)?;
    let (version, cross_site, finish_stream) = (arguments.version, arguments.cross_site, arguments.finish_stream);
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
    let (body, limits) = (body_rules(&arguments), limits(&signature, &arguments));
    let on_disconnect = if arguments.cancel_on_disconnect { quote!(Cancel) } else { quote!(Finish) };
    let own_fields = quote! {
        version: #version,
        routes: &[#(#routes),*],
        exposure: ::phalanx::__private::Exposure::#exposure,
        cross_site: #cross_site,
        on_disconnect: ::phalanx::__private::OnDisconnect::#on_disconnect,
        finish_stream: #finish_stream,
        limits: #limits,
        body: #body,
    };
    Ok(definition(&signature, &arguments, DefinitionKind::Action, &own_fields))
}

/// The function, its marker type, and the marker's implementation of the trait of its kind, which holds a definition with the fields
/// that actions, tasks and remote methods share and with `own_fields`.
pub(crate) fn definition(
    signature: &FunctionShape,
    arguments: &Arguments,
    kind: DefinitionKind,
    own_fields: &TokenStream,
) -> TokenStream {
    let FunctionShape { item, description, conditions, returns, .. } = signature;
    let (function, visibility) = (&item.sig.ident, &item.vis);
    let name = action_name(signature, arguments);
    let input = input(signature);
    let output = quote_spanned!(returns.span()=> <#returns as ::phalanx::__private::ActionResult>::Value);
    // Each with the span of its type in the signature: the compiler reports a private type there.
    let input_span = signature.last.as_ref().map_or_else(Span::call_site, Spanned::span);
    let mut types = quote_spanned!(input_span=> type Input = #input;);
    let (interface, def, usage) = match kind {
        DefinitionKind::Action => (quote!(Action), quote!(ActionDef), "ctx.call"),
        DefinitionKind::Remote => (quote!(Remote), quote!(RemoteDef), "connections().call"),
        DefinitionKind::Task => (quote!(Task), quote!(TaskDef), "tasks().enqueue"),
    };
    if !matches!(kind, DefinitionKind::Task) {
        types.extend(quote_spanned!(returns.span()=> type Output = #output;));
    }
    let (deadline, require) = (deadline(arguments.deadline), require(signature));
    let run = run(signature, matches!(kind, DefinitionKind::Task));
    let doc = format!("The type of the function [`{function}()`], for `{usage}::<{function}>(..)` and the like.");
    quote! {
        #item

        #[doc = #doc]
        #(#conditions)*
        #[derive(Debug)]
        #[allow(non_camel_case_types)]
        #visibility struct #function {}

        #(#conditions)*
        impl ::phalanx::__private::#interface for #function {
            #types
            const DEF: ::phalanx::__private::#def = ::phalanx::__private::#def {
                name: #name,
                description: #description,
                deadline: #deadline,
                input: ::phalanx::__private::input_schema::<#input>,
                output: <#output as ::phalanx::__private::IntoAnswer>::schema,
                require: #require,
                run: #run,
                #own_fields
            };
        }
    }
}

fn deadline(deadline: DeadlineArg) -> TokenStream {
    match deadline {
        DeadlineArg::Default => quote!(::phalanx::__private::Deadline::Default),
        DeadlineArg::Never => quote!(::phalanx::__private::Deadline::Never),
        DeadlineArg::After(time) => {
            let time = duration(time);
            quote!(::phalanx::__private::Deadline::After(#time))
        }
    }
}

pub(crate) fn duration(time: Duration) -> TokenStream {
    let ms = time.as_millis() as u64;
    quote!(::core::time::Duration::from_millis(#ms))
}

fn body_rules(arguments: &Arguments) -> TokenStream {
    let bound = |bytes: Option<u64>| {
        bytes.map_or_else(|| quote!(::core::option::Option::None), |bytes| quote!(::core::option::Option::Some(#bytes)))
    };
    let (max_body, max_upload, is_raw) = (bound(arguments.max_body), bound(arguments.max_upload), arguments.raw_body);
    quote!(::phalanx::__private::BodyRules { max_body: #max_body, max_upload: #max_upload, is_raw: #is_raw })
}

/// The function that makes the limits. A rate alone has the name of the action.
fn limits(signature: &FunctionShape, arguments: &Arguments) -> TokenStream {
    let name = action_name(signature, arguments);
    let each = arguments.limits.iter().map(|limit| match limit {
        // Names of actions have dots, those of limits have none.
        LimitArg::Rate(calls, window) => {
            let name = name.replace('.', "_");
            let window = duration(*window);
            quote!(::phalanx::__private::Limit::named(#name).per(#calls, #window))
        }
        LimitArg::Value(value) => quote!(#value),
    });
    if arguments.limits.is_empty() { quote!(::std::vec::Vec::new) } else { quote!(|| ::std::vec![#(#each),*]) }
}

pub(crate) fn action_name(signature: &FunctionShape, arguments: &Arguments) -> String {
    arguments.name.as_ref().map_or_else(|| signature.item.sig.ident.to_string(), LitStr::value)
}

/// The type of the input: that of the last parameter, unless it is a guard.
pub(crate) fn input(signature: &FunctionShape) -> TokenStream {
    match &signature.last {
        Some(last) => quote_spanned!(last.span()=> <#last as ::phalanx::__private::LastParameter>::Input),
        None => quote!(::phalanx::__private::NoInput),
    }
}

/// The steps of the last parameter.
fn role(last: &Type) -> TokenStream {
    quote_spanned! {last.span()=>
        <<#last as ::phalanx::__private::LastParameter>::Role as ::phalanx::__private::ParameterRole<#last>>
    }
}

/// Each guard has the span of its parameter, so that a missing `FromContext` is reported there.
fn require(signature: &FunctionShape) -> TokenStream {
    let guards = signature.guards.iter().map(
        |guard| quote_spanned!(guard.span()=> <#guard as ::phalanx::__private::FromContext>::require(requirements);),
    );
    let last = signature.last.as_ref().map(|last| {
        let role = role(last);
        quote_spanned!(last.span()=> #role::require(requirements);)
    });
    let each: Vec<_> = guards.chain(last).collect();
    if each.is_empty() { quote!(|_| {}) } else { quote!(|requirements| { #(#each)* }) }
}

/// The closure that calls the function: guards, body, input, the guards after the body, function. Its variables are
/// hygienic (`mixed_site`): an action may have the same name as one. A task has a context of its own, and an input that
/// another version of the application may have to decode.
fn run(signature: &FunctionShape, is_task: bool) -> TokenStream {
    let function = &signature.item.sig.ident;
    let local = |name: &str| Ident::new(name, Span::mixed_site());
    let (ctx, body, outcome) = (local("ctx"), local("body"), local("outcome"));
    let params = local(if signature.last.is_some() { "params" } else { "_params" });
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
    let last = signature.last.as_ref().map(|ty| (ty, role(ty), local("last")));
    let last_before =
        last.as_ref().map(|(ty, role, last)| quote_spanned!(ty.span()=> let #last = #role::before_body(&#ctx).await?;));
    let decode = last.as_ref().map(|(ty, role, last)| {
        let decode = if is_task { quote!(decode_input) } else { quote!(Params::decode) };
        quote_spanned!(ty.span()=> let #last = #role::decode(#last, || ::phalanx::__private::#decode(&#params))?;)
    });
    let last_after = last
        .as_ref()
        .map(|(ty, role, last)| quote_spanned!(ty.span()=> let #last = #role::after_body(#last, &#ctx).await?;));
    let context = signature
        .has_context
        .then(|| if is_task { quote!(::phalanx::__private::TaskContext::of(&#ctx)?,) } else { quote!(#ctx,) });
    let last = last.as_ref().map(|(_, _, last)| quote!(#last,));
    // All tokens share the span of the return type. With others, an error in that type, which is reported where it is
    // `Output`, would be reported a second time here.
    let returned = Ident::new("returned", signature.returns.span());
    let answer = quote_spanned!(signature.returns.span()=> ::phalanx::__private::ActionResult::outcome(#returned));
    quote! {
        |#ctx, #body| ::phalanx::__private::answering(async move {
            #(#before)*
            #last_before
            let #params = match ::phalanx::__private::CallBody::params(#body, &#ctx).await {
                ::core::result::Result::Ok(#params) => #params,
                ::core::result::Result::Err(#outcome) => return #outcome,
            };
            #decode
            #(#after)*
            #last_after
            let #returned = #function(#context #(#names,)* #last).await;
            #answer
        })
    }
}
