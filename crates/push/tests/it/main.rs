//! Push against real sockets on loopback and a broker in memory.

mod delivery;
mod memory;
mod subscriber;
mod world;
