//! The API server as its clients see it: raw requests, and `kube` over the service in process.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod applies;
mod audit;
mod deletions;
mod documents;
mod events;
mod fixture;
mod leases;
mod lists;
mod model;
mod ownership;
mod patience;
mod reviews;
mod roads;
mod secrets;
mod stores;
mod total;
mod watches;
mod writes;
