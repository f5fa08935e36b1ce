//! The API server as its clients see it: raw requests, and `kube` over the service in process.

mod deletions;
mod documents;
mod fixture;
mod lists;
mod roads;
mod stores;
mod total;
mod watches;
mod writes;
