//! The type of an application's sessions.

use std::any::{Any, TypeId, type_name};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The value of an application's sessions. An application has one such type, which it names by `App::session::<T>()`.
///
/// ```
/// use phalanx_core::SessionData;
/// use phalanx_core::serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// # #[serde(crate = "phalanx_core::serde")]
/// struct Account {
///     user: String,
///     visits: u32,
/// }
///
/// impl SessionData for Account {
///     fn user(&self) -> Option<&str> {
///         Some(&self.user)
///     }
/// }
/// ```
pub trait SessionData: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The user who is signed in; `None` before a sign-in. The one place that says so: the list of a user's sessions follows
    /// from it, and a session whose user changes gets a new id.
    fn user(&self) -> Option<&str>;
}

/// The type of an application's sessions.
#[derive(Clone, Copy, Debug)]
pub struct SessionType {
    pub(crate) id: TypeId,
    pub(crate) name: &'static str,
    /// Decodes a value; `None` if it is none of the type.
    pub(super) decode: fn(&[u8]) -> Option<Arc<dyn Any + Send + Sync>>,
    /// The user of an encoded value; `None` if it does not decode.
    pub(super) user_of: fn(&[u8]) -> Option<Option<String>>,
}

impl SessionType {
    /// Sessions of `T`.
    pub fn of<T: SessionData>() -> Self {
        let decode =
            |bytes: &[u8]| Some(Arc::new(serde_json::from_slice::<T>(bytes).ok()?) as Arc<dyn Any + Send + Sync>);
        let user_of = |bytes: &[u8]| {
            let value: T = serde_json::from_slice(bytes).ok()?;
            Some(value.user().map(str::to_owned))
        };
        Self { id: TypeId::of::<T>(), name: type_name::<T>(), decode, user_of }
    }
}
