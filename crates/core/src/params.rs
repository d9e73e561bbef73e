//! STUB
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
/// STUB
#[derive(Debug, Default)]
pub struct Params(Option<Box<RawValue>>);
/// STUB
pub trait Input: DeserializeOwned + schemars::JsonSchema + validator::Validate + Send + 'static {}
impl<T: DeserializeOwned + schemars::JsonSchema + validator::Validate + Send + 'static> Input for T {}
/// STUB
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema, validator::Validate)]
pub struct NoInput {}
impl Params {
    /// x
    /// # Errors
    /// x
    pub fn from_raw_json(t: Box<RawValue>) -> Result<Self, crate::ActionError> {
        Ok(Self(Some(t)))
    }
    /// x
    /// # Errors
    /// x
    pub fn decode<T: Input>(&self) -> Result<T, crate::ActionError> {
        serde_json::from_str(self.0.as_ref().map_or("{}", |r| r.get())).map_err(crate::ActionError::internal)
    }
}
