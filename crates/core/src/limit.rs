//! Limits of an application: how often a caller may call an action, counted over the cluster.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::backend::{SessionKey, UserKey};
use crate::config::{LimitRate, LimitSettings};
use crate::context::Context;
use crate::error::ActionError;

/// How often a caller may call an action, or the actions of a group; counted over all nodes.
///
/// Each stretch of that time sees so many calls at most, wherever it begins; beyond, a call is `rate_limited`. One of several
/// limits that has no room refuses the call, and none of those that count at the same point, before or after the guards, counts
/// it. Calls of other actions, of tasks and of the command line do not count. While the backend is away each node counts alone.
///
/// ```
/// use phalanx_core::{Limit, MINUTE};
///
/// # let _ =
/// Limit::named("sign_in").per(10, MINUTE).by_address()
/// # ;
/// ```
///
/// The name is that of the limit, not of an action: actions whose limits have one name share it. In the settings,
/// `sign_in = "20/1m"` in `[limits]` gives it another rate, and `"0"` turns it off.
#[derive(Clone)]
#[must_use = "a limit does nothing until an action or a group has it"]
pub struct Limit {
    name: String,
    rate: LimitRate,
    by: LimitedBy,
}

/// A limit without its rate: see [`Limit::named`].
#[derive(Clone, Debug)]
#[must_use = "a limit needs a rate: `.per(10, MINUTE)`"]
pub struct NamedLimit(String);

impl NamedLimit {
    /// Sets how many calls there may be in a time, which is from 100 ms to 366 days.
    pub fn per(self, calls: u32, window: Duration) -> Limit {
        Limit { name: self.0, rate: LimitRate { calls, window }, by: LimitedBy::Address }
    }
}

/// Whose calls a limit counts.
#[derive(Clone)]
enum LimitedBy {
    Address,
    Header(String),
    Session,
    User,
    Own(Arc<OwnKey>),
}

/// A key of an application's own.
type OwnKey = dyn Fn(&Context) -> Option<String> + Send + Sync;

impl Limit {
    /// Begins a limit of that name: 1 to 100 characters of `A-Z a-z 0-9 : _ -`.
    pub fn named(name: impl Into<String>) -> NamedLimit {
        NamedLimit(name.into())
    }

    /// Counts by the address of the client, which is what a limit does that says nothing: an IPv4 address, or the network of an
    /// IPv6 address (`limits.ipv6_prefix`). Behind a proxy of `web.trusted_proxies` it is the address that this one forwards.
    pub fn by_address(self) -> Self {
        Self { by: LimitedBy::Address, ..self }
    }

    /// Counts by the value of a header of the HTTP request, such as a key of an interface; by the address without one, and over
    /// a socket, which has no headers. A client chooses its headers: a second limit, by address, bounds what it gains by that.
    pub fn by_header(self, name: impl Into<String>) -> Self {
        Self { by: LimitedBy::Header(name.into().to_ascii_lowercase()), ..self }
    }

    /// Counts by the session, after the guards; by the address without one.
    pub fn by_session(self) -> Self {
        Self { by: LimitedBy::Session, ..self }
    }

    /// Counts by the user, after the guards; by the address without one.
    pub fn by_user(self) -> Self {
        Self { by: LimitedBy::User, ..self }
    }

    /// Counts by a key of the application's own, which sees the call before its guards and its body; by the address where it is
    /// `None`. Only a hash of it is kept.
    pub fn by(self, key: impl Fn(&Context) -> Option<String> + Send + Sync + 'static) -> Self {
        Self { by: LimitedBy::Own(Arc::new(key)), ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its rate, unless a setting gives it another one.
    pub fn rate(&self) -> LimitRate {
        self.rate
    }

    /// Whose calls it counts, for people: `by address`.
    pub fn counted_by(&self) -> impl fmt::Display {
        &self.by
    }

    /// Whether it counts after the guards, which may read the session.
    pub(crate) fn is_after_guards(&self) -> bool {
        matches!(self.by, LimitedBy::Session | LimitedBy::User)
    }

    /// Whether two limits of one name may share their counts.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let is_same = match (&self.by, &other.by) {
            (LimitedBy::Header(one), LimitedBy::Header(other)) => one == other,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        };
        is_same && self.rate == other.rate
    }

    /// Why the application cannot have this limit.
    pub(crate) fn mistake(&self) -> Option<String> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b":_-".contains(&byte);
        if !(1..=100).contains(&self.name.len()) || !self.name.bytes().all(is_name) {
            return Some("the name of a limit is 1 to 100 characters of A-Z a-z 0-9 : _ -".to_owned());
        }
        if LimitSettings::KEYS.contains(&&*self.name) {
            return Some("[limits] has a setting of this name: rename the limit".to_owned());
        }
        if let LimitedBy::Header(name) = &self.by
            && http::HeaderName::from_bytes(name.as_bytes()).is_err()
        {
            return Some(format!("{name:?} is no name of a header"));
        }
        self.rate.mistake().map(str::to_owned)
    }

    /// Whose call this is. The address is a text as it is, all else a hash.
    pub(crate) fn subject(&self, ctx: &Context, caller: &KnownCaller) -> Arc<str> {
        let hashed = |kind: &str, value: &[u8]| {
            let hash =
                Sha256::new().chain_update(self.name.as_bytes()).chain_update([0]).chain_update(value).finalize();
            format!("{kind}:{}", URL_SAFE_NO_PAD.encode(&hash[..16])).into()
        };
        let found = match &self.by {
            LimitedBy::Address => None,
            LimitedBy::Header(name) => {
                let value = ctx.caller().headers.get(name.as_str()).filter(|value| !value.is_empty());
                value.map(|value| hashed("h", value.as_bytes()))
            }
            LimitedBy::Session => caller.session.map(|session| hashed("s", &session.digits())),
            LimitedBy::User => caller.user.map(|user| hashed("u", user.to_hex().as_bytes())),
            LimitedBy::Own(key) => key(ctx).map(|key| hashed("k", key.as_bytes())),
        };
        found.unwrap_or_else(|| match ctx.caller().remote {
            Some(address) => address_subject(ctx.config().limits.subject_of(SocketAddr::ip(&address))),
            None => "a:none".into(),
        })
    }
}

/// The subject of an address. That of IPv4 is made by parts: most limits count by it, and `format!` costs several times as much.
fn address_subject(address: IpAddr) -> Arc<str> {
    let IpAddr::V4(address) = address else { return format!("a:{address}").into() };
    let mut text = String::with_capacity("a:255.255.255.255".len());
    for (octet, separator) in address.octets().iter().zip(["a:", ".", ".", "."]) {
        text.push_str(separator);
        text.push_str(itoa::Buffer::new().format(*octet));
    }
    text.into()
}

/// The session and the user of a call, for limits that count by them.
#[derive(Debug, Default)]
pub(crate) struct KnownCaller {
    session: Option<SessionKey>,
    user: Option<UserKey>,
}

impl KnownCaller {
    /// That of a call, after its guards: the session as they have read it.
    ///
    /// # Errors
    ///
    /// Those of the read: a store that is away makes no caller a guest.
    pub(crate) async fn of(ctx: &Context) -> Result<Self, ActionError> {
        let known = ctx.known_session().await?;
        Ok(known.map_or_else(Self::default, |(session, user)| Self { session: Some(session), user }))
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limit({self})")
    }
}

/// `sign_in 10/1m by address`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.name, self.rate, self.by)
    }
}

impl fmt::Display for LimitedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("by address"),
            Self::Header(name) => write!(f, "by {name}"),
            Self::Session => f.write_str("by session"),
            Self::User => f.write_str("by user"),
            Self::Own(_) => f.write_str("by its own key"),
        }
    }
}
