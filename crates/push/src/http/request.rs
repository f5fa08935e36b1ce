//! The request of an attempt, as it goes out.

use bytes::Bytes;
use eventbus_core::wire::delivery;
use eventbus_core::wire::lines::Lines;

use crate::transport::Delivery;

/// Who asks.
const AGENT: &str = concat!("eventbus/", env!("CARGO_PKG_VERSION"));

/// Writes the head of a request into `lines`, in place of what is there; gives the body.
pub(super) fn write(asked: &Delivery<'_>, lines: &mut Lines) -> Bytes {
    let Delivery { endpoint, event, ref form, .. } = *asked;
    lines.clear();
    lines.line(&[b"POST ", endpoint.target.as_str().as_bytes(), b" HTTP/1.1"]);
    lines.header("Host", endpoint.host.as_bytes());
    lines.header("User-Agent", AGENT.as_bytes());
    if let Some(authorization) = &endpoint.authorization {
        lines.header("Authorization", authorization.as_bytes());
    }
    let body = delivery::request(event, form, lines);
    lines.number("Content-Length", body.len());
    lines.line(&[]);
    body
}
