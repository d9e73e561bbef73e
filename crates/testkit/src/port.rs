//! Ports that a server may take again after it ended, since nobody else is given them.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Below those that the system hands out by itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// How many ports are tried.
const TRIES: usize = 50;

/// A port of this machine's loopback that is free, and that no other caller in this process is given soon.
///
/// # Panics
///
/// If many in a row are taken.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let count = PORTS.end - PORTS.start;
    let next = NEXT.get_or_init(|| AtomicU16::new(rand::random_range(0..count)));
    let mut ports = (0..TRIES).map(|_| PORTS.start + next.fetch_add(1, Relaxed) % count);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(is_free).unwrap_or_else(|| panic!("no port of {PORTS:?} is free"))
}
