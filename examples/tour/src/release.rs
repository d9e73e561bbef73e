//! A faulty release of the tour, for tests of deployments.

use phalanx::BoxError;
use phalanx::prelude::*;

/// Panics while the node boots, with the message that `TOUR_PANICS` has.
pub(crate) struct Faulty(String);

impl Faulty {
    /// Whether this is to be a faulty release.
    pub(crate) fn from_environment() -> Option<Self> {
        std::env::var("TOUR_PANICS").ok().map(Self)
    }
}

#[async_trait]
impl Initializer for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    async fn initialize(&self, _: &mut Boot<'_>) -> Result<(), BoxError> {
        panic!("{}", self.0)
    }
}
