//! The expansion of `#[task]`.

use proc_macro2::{TokenStream, TokenTree};
use quote::{format_ident, quote};

use crate::action::{action_name, definition, duration, input};
use crate::attr::{Arguments, RetryArgs, UniqueArgs, UniqueKeyArg};
use crate::signature::{self, DefinitionKind};

/// Expands `#[task]`, or returns its errors for the compiler to print.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, TokenStream> {
    let (arguments, signature) = signature::read(DefinitionKind::Task, arguments, item)?;
    let input = input(&signature);
    // A limit is that of a queue: by default of one that the task has alone.
    let queue = match &arguments.queue {
        Some(queue) => queue.value(),
        None if arguments.queue_limits.is_empty() => "default".to_owned(),
        None => action_name(&signature, &arguments),
    };
    let limits = arguments.queue_limits.expand();
    let fair_by = match &arguments.fair_by {
        Some(field) => quote!(::core::option::Option::Some(#field)),
        None => quote!(::core::option::Option::None),
    };
    let (retry, blocking, exclusive) = (retry(&arguments.retry), arguments.blocking, arguments.exclusive);
    let (tracked, unique) = (arguments.tracked, unique(&arguments.unique, &input));
    let (on_failed, schedule) = (on_failed(&arguments), arguments.schedule.expand());
    let own_fields = quote! {
        queue: #queue,
        retry: #retry,
        blocking: #blocking,
        exclusive: #exclusive,
        tracked: #tracked,
        limits: #limits,
        fair_by: #fair_by,
        schedule: #schedule,
        unique: #unique,
        check: ::phalanx::__private::check_input::<#input>,
        on_failed: #on_failed,
    };
    Ok(definition(&signature, &arguments, DefinitionKind::Task, &own_fields))
}

/// All fields are written: an update from the default would be needless where all are given.
fn retry(retry: &RetryArgs) -> TokenStream {
    let default = |field: &str| {
        let field = format_ident!("{field}");
        quote!(::phalanx::__private::RetryPolicy::DEFAULT.#field)
    };
    let attempts = retry.attempts.map_or_else(|| default("attempts"), |attempts| quote!(#attempts));
    let backoff = retry.backoff.map_or_else(|| default("backoff"), duration);
    let max_backoff = retry.max_backoff.map_or_else(|| default("max_backoff"), duration);
    let jitter = retry.jitter.as_ref().map_or_else(|| default("jitter"), |jitter| quote!(#jitter));
    let kinds = retry.not_retried.iter().map(|kind| format_ident!("{kind}"));
    quote! {
        ::phalanx::__private::RetryPolicy {
            attempts: #attempts,
            backoff: #backoff,
            max_backoff: #max_backoff,
            jitter: #jitter,
            not_retried: &[#(::phalanx::__private::ErrorKind::#kinds),*],
        }
    }
}

/// As for retries.
fn unique(unique: &UniqueArgs, input: &TokenStream) -> TokenStream {
    let default = |field: &str| {
        let field = format_ident!("{field}");
        quote!(::phalanx::__private::UniquePolicy::DEFAULT.#field)
    };
    let key = match &unique.key {
        None => default("key"),
        Some(UniqueKeyArg::Input) => quote!(::phalanx::__private::UniqueKey::Input),
        Some(UniqueKeyArg::Fields(fields)) => quote!(::phalanx::__private::UniqueKey::Fields(&[#(#fields),*])),
        Some(UniqueKeyArg::Function(function)) => quote! {
            ::phalanx::__private::UniqueKey::Computed(|params| {
                ::phalanx::__private::computed_key::<#input>(params, |input| ::std::string::ToString::to_string(&#function(input)))
            })
        },
    };
    let until = unique
        .until
        .map(|until| format_ident!("{until}"))
        .map_or_else(|| default("until"), |until| quote!(::phalanx::__private::UniqueUntil::#until));
    let scope = unique
        .scope
        .map(|scope| format_ident!("{scope}"))
        .map_or_else(|| default("scope"), |scope| quote!(::phalanx::__private::UniqueScope::#scope));
    let lifetime = unique.lifetime.map_or_else(|| default("lifetime"), duration);
    quote! {
        ::phalanx::__private::UniquePolicy { key: #key, until: #until, scope: #scope, lifetime: #lifetime }
    }
}

/// The function, with the span of its name: the compiler reports there what it lacks.
fn on_failed(arguments: &Arguments) -> TokenStream {
    let Some(function) = &arguments.on_failed else { return quote!(::core::option::Option::None) };
    let span =
        function.clone().into_iter().next().map_or_else(proc_macro2::Span::call_site, |tree: TokenTree| tree.span());
    quote::quote_spanned! {span=>
        ::core::option::Option::Some(|ctx, failure| ::std::boxed::Box::pin(#function(ctx, failure)))
    }
}
