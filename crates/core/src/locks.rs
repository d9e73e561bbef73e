//! STUB
/// STUB
#[derive(Clone, Debug, Default)]
pub struct Locks;
