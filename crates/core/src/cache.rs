//! STUB
/// STUB
#[derive(Clone, Debug, Default)]
pub struct Cache;
