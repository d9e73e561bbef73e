//! Reading of headers that several parts need.

use http::{HeaderMap, HeaderName};

/// Returns the elements of a header that is a comma-separated list without quoted commas, over all its lines; lines that
/// are not text have none.
pub(crate) fn list_elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// Whether one of these headers is there. Those of a request are few: to compare their names costs less than to hash one.
pub(crate) fn has_any(headers: &HeaderMap, names: &[&HeaderName]) -> bool {
    headers.keys().any(|name| names.contains(&name))
}
