//! Ports that a server can bind again after a restart, because no other caller gets them.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Below the range from which the system assigns ports.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// The number of ports that are tried.
const TRIES: usize = 50;

/// Returns a free port of the loopback interface. No other caller in this process gets it soon.
///
/// # Panics
///
/// If 50 ports in a row are taken.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let count = PORTS.end - PORTS.start;
    let next = NEXT.get_or_init(|| AtomicU16::new(rand::random_range(0..count)));
    let mut ports = (0..TRIES).map(|_| PORTS.start + next.fetch_add(1, Relaxed) % count);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(is_free).unwrap_or_else(|| panic!("no port of {PORTS:?} is free"))
}
