//! Push against real sockets on loopback and a broker in memory.

mod broker;
mod changes;
mod delivery;
mod drain;
mod isolation;
mod memory;
mod outcomes;
mod random;
mod subscriber;
mod tls;
mod world;
