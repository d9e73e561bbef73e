//! Tools that the tests of Phalanx share: laws for backends, real node processes, a real Redis, and a faulty network.

mod clock;
mod figure;
mod flow;
pub mod laws;
mod port;
mod print;
mod process;
mod proxy;
mod redis;
mod resp;
mod signal;

pub use figure::{at_most, check_time};
pub use flow::{Direction, Flow};
pub use port::free_port;
pub use print::print;
pub use process::{Process, Signal, binary, command, run};
pub use proxy::Proxy;
pub use redis::{COMMANDS, INTEROP, KEYS, Redis, Watch};
