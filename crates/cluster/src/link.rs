//! The numbers of the connections that publish, *links*: with each connection of a node its number rises.
//!
//! A connection that broke may still carry messages, for seconds, while its node has published newer ones over the next.
//! So a node starts each connection with a *hello*, a script that stores the new number in Redis and publishes it in one
//! step (`bus/hello.lua`), and every message carries the number of its connection. A receiver drops messages of a lower
//! number than it knows. It knows all numbers: it subscribes to the channel of all nodes, then reads those that are
//! stored, and only then subscribes to rooms. A hello before the read is in what it reads, and one after it is received,
//! before any message that comes later. If a room message has a higher number all the same, its hello was missed, and what
//! else was missed with it is not known: there is a gap in its place. Its own number a node knows from its publisher.
//!
//! The numbers are not read in one transaction with the subscription: a Redis that is full refuses every MULTI.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytes::BytesMut;
use deadpool_redis::redis::{Script, cmd};
use phalanx_core::Generation;
use phalanx_core::backend::BackendError;

use crate::client::RedisClient;
use crate::current_generation::CurrentGeneration;
use crate::keys::Keys;
use crate::resp;

/// The link of this node, shared by the publisher, which announces it, and by the renewal of the lease, which checks
/// that Redis still has it. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct PublisherLink(Arc<LinkState>);

#[derive(Debug, Default)]
struct LinkState {
    /// The number of the last connection whose hello was answered; 0 if there was none.
    announced: AtomicU64,
    /// Redis lost the number: it is to be announced again.
    is_requested: AtomicBool,
}

impl PublisherLink {
    /// The number that Redis has stored, unless it lost it; 0 if none was announced.
    pub(crate) fn announced(&self) -> u64 {
        self.0.announced.load(Relaxed)
    }

    /// Records that Redis has stored this number.
    pub(crate) fn announce(&self, link: u64) {
        self.0.announced.store(link, Relaxed);
    }

    /// Compares the number that Redis has with the one that was `announced` when the command was sent.
    pub(crate) fn check(&self, stored: &str, announced: u64) {
        let is_lost = announced > 0 && stored.parse() != Ok(announced);
        // Unless another one was announced meanwhile, which the answer does not show yet.
        if is_lost && self.announced() == announced {
            self.0.is_requested.store(true, Relaxed);
        }
    }

    /// Whether the number is to be announced again.
    pub(crate) fn is_requested(&self) -> bool {
        self.0.is_requested.load(Relaxed)
    }

    /// Ends a request: a hello is about to be sent.
    pub(crate) fn end_request(&self) {
        self.0.is_requested.store(false, Relaxed);
    }
}

/// The link of this node, by which its own subscription knows it although Redis has lost it: others that learnt it earlier
/// receive the messages over it, whose answers are OK.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnLink {
    pub(crate) current: CurrentGeneration,
    pub(crate) link: PublisherLink,
}

impl OwnLink {
    /// The announced number, if the generation is one of this node.
    pub(crate) fn of(&self, generation: Generation) -> Option<u64> {
        self.current.all().contains(&generation).then(|| self.link.announced())
    }
}

/// The announcement of a connection: its number, the names of its node, and the envelope for the nodes that are
/// subscribed.
pub(crate) struct Hello<'a> {
    pub(crate) link: u64,
    pub(crate) names: &'a [Generation],
    pub(crate) envelope: &'a [u8],
}

/// Writes the commands of a hello; returns how many. The script is loaded along with each call: another client may have
/// removed all scripts, and a hello is rare.
pub(crate) fn write_hello(out: &mut BytesMut, keys: &Keys, hello: &Hello<'_>) -> usize {
    let Hello { link, names, envelope } = hello;
    let text = include_str!("lua/bus/hello.lua");
    let (script, loading) = (Script::new(text), write_load(out, text));
    let (links, unused, channel, link) = (keys.links(), keys.unused(), keys.all_nodes(), link.to_string());
    let mut parts = vec!["EVALSHA".as_bytes(), script.get_hash().as_bytes(), b"2", links.as_bytes()];
    parts.extend([unused.as_bytes(), channel.as_bytes(), envelope, link.as_bytes()]);
    parts.extend(names.iter().map(|name| name.as_str().as_bytes()));
    resp::write(out, parts.into_iter());
    loading + 1
}

/// Writes the command that loads a script; returns how many.
pub(crate) fn write_load(out: &mut BytesMut, script: &str) -> usize {
    resp::write(out, [&b"SCRIPT"[..], b"LOAD", script.as_bytes()].into_iter());
    1
}

/// Reads the numbers that are stored. Entries that are none are skipped, and so is a value of another kind: the next
/// hello replaces it.
pub(crate) async fn read(client: &RedisClient, keys: &Keys) -> Result<Vec<(Generation, u64)>, BackendError> {
    let stored: Vec<(Vec<u8>, Vec<u8>)> = match client.read("links", cmd("HGETALL").arg(keys.links())).await {
        Err(BackendError::WrongKind { .. }) => Vec::new(),
        stored => stored?,
    };
    Ok(stored.iter().filter_map(|(name, link)| parse(name, link)).collect())
}

fn parse(name: &[u8], link: &[u8]) -> Option<(Generation, u64)> {
    let name = Generation::parse(std::str::from_utf8(name).ok()?)?;
    Some((name, std::str::from_utf8(link).ok()?.parse().ok()?))
}
