//! An endpoint: the URL of a Subscription, taken apart once and not for each attempt.

use std::fmt;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD as BASE64, Engine};
use eventbus_core::wire::percent;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};

/// Where a Subscription's events go.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// What is connected to.
    pub origin: Arc<Origin>,
    /// Path and query, as in the request line.
    pub target: PathAndQuery,
    /// The `Host` header.
    pub host: HeaderValue,
    /// The `Authorization` header, when the URL names a user.
    pub authorization: Option<HeaderValue>,
}

/// What a connection leads to. Endpoints with the same origin share connections.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Is it spoken to through TLS?
    pub secure: bool,
    /// Host name in lower case, or an address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The URL cannot be requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an http or https URL with a host")]
pub struct BadEndpoint;

impl Endpoint {
    /// Takes a URL apart.
    pub fn parse(url: &str) -> Result<Self, BadEndpoint> {
        let uri: Uri = url.parse().map_err(|_| BadEndpoint)?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(BadEndpoint),
        };
        let authority = uri.authority().ok_or(BadEndpoint)?;
        let (user, place) = match authority.as_str().rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority.as_str()),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        // What follows the host is a port that fits 16 bits, or nothing.
        let port = match place[authority.host().len()..].strip_prefix(':') {
            None | Some("") => {
                if secure {
                    443
                } else {
                    80
                }
            }
            Some(port) => port.parse().map_err(|_| BadEndpoint)?,
        };
        if host.is_empty() {
            return Err(BadEndpoint);
        }
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self {
            target: format!("{}{query}", uri.path()).parse().map_err(|_| BadEndpoint)?,
            host: HeaderValue::from_str(place).map_err(|_| BadEndpoint)?,
            authorization: user.map(basic_authorization).transpose()?,
            origin: Arc::new(Origin { secure, host: host.to_ascii_lowercase(), port }),
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", self.host, self.port)
    }
}

/// `user:password` of a URL as Basic authorization (RFC 7617).
fn basic_authorization(user: &str) -> Result<HeaderValue, BadEndpoint> {
    let mut plain = percent::decoded_bytes(user.as_bytes());
    if !user.contains(':') {
        plain.push(b':');
    }
    let mut value = HeaderValue::from_str(&format!("Basic {}", BASE64.encode(&plain)))
        .map_err(|_| BadEndpoint)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let endpoint = Endpoint::parse("http://Shop.Local:8080/in/x?a=1&b=2#part").unwrap();
        assert_eq!(endpoint.origin.to_string(), "http://shop.local:8080");
        assert_eq!(endpoint.target, "/in/x?a=1&b=2");
        assert_eq!(endpoint.host, "Shop.Local:8080");
        assert_eq!(endpoint.authorization, None);
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        for (url, origin, target) in [
            ("http://a", "http://a:80", "/"),
            ("https://a", "https://a:443", "/"),
            ("https://a:/", "https://a:443", "/"),
            ("http://a?q", "http://a:80", "/?q"),
            ("HTTP://[::1]:9/ä", "http://[::1]:9", "/ä"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!(endpoint.origin.to_string(), origin, "{url}");
            assert_eq!(endpoint.target.to_string(), target, "{url}");
        }
    }

    #[test]
    fn a_user_in_the_url_becomes_basic_authorization() {
        for (user, header) in [
            ("aladdin:open%20sesame", "Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ("ab", "Basic YWI6"),
            ("a:b", "Basic YTpi"),
            ("a%zz:b", "Basic YSV6ejpi"),
        ] {
            let endpoint = Endpoint::parse(&format!("http://{user}@h:1/p")).unwrap();
            assert_eq!(endpoint.authorization.as_ref().unwrap(), header);
            assert_eq!(endpoint.host, "h:1");
            assert!(!format!("{endpoint:?}").contains(header), "the password is hidden");
        }
    }

    #[test]
    fn what_cannot_be_requested_is_refused() {
        for url in
            ["", "a", "/a", "ftp://a", "http://", "http://:80", "http://a:99999", "http://a b"]
        {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
    }
}
