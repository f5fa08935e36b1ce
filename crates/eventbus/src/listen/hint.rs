//! What `listen` says at its start: where it listens, and what to apply so that events come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The two resources that bring events to `address`, ready to apply, and an event to try them with.
pub(super) fn text(address: SocketAddr) -> String {
    let url = format!("http://{}/", reachable(address));
    format!(
        "listening on {url}

To have events delivered here:

kubectl --kubeconfig eventbus-data/kubeconfig apply -f - <<'EOF'
apiVersion: eventing.kyma.cx/v1alpha1
kind: Subscription
metadata:
  name: listen
  namespace: default
spec:
  endpoint: {url}
  event_type: order.created
  event_type_version: v1
  source_id: shop
---
apiVersion: remoteenvironment.kyma.cx/v1alpha1
kind: EventActivation
metadata:
  name: shop
  namespace: default
spec:
  displayName: shop
  sourceId: shop
EOF
eventbus publish --source-id shop --event-type order.created --data '{{\"order\": 1}}'
"
    )
}

/// An address of this machine to connect to, where `address` stands for all of them.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_an_address_one_can_connect_to() {
        for (given, shown) in [("0.0.0.0:9", "127.0.0.1:9"), ("[::]:9", "[::1]:9")] {
            let text = text(given.parse().unwrap());
            assert!(text.contains(&format!("endpoint: http://{shown}/\n")), "{text}");
        }
    }
}
