//! The API server as its clients see it: raw requests, and `kube` over the service in process.

mod fixture;
mod roads;
