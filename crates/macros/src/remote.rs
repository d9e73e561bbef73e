//! The expansion of `#[remote]`.

use proc_macro2::TokenStream;

use crate::action::definition;
use crate::signature::{self, DefinitionKind};

/// Expands `#[remote]`, or returns its errors for the compiler to print.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream, TokenStream> {
    let (arguments, signature) = signature::read(DefinitionKind::Remote, arguments, item)?;
    Ok(definition(&signature, &arguments, DefinitionKind::Remote, &TokenStream::new()))
}
