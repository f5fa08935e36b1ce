//! What a request's path and query ask for.

use crate::{
    definition::{Registry, Resource},
    openapi::Place,
    status::{ApiError, Cause},
};
use std::sync::Arc;

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Route<'p> {
    /// `/healthz`, `/readyz`, `/livez`.
    Health,
    /// `/version`.
    Version,
    /// `/api`, `/apis` and what lies below them without naming a resource.
    Discovery(Discovery<'p>),
    /// `/openapi/v2`, `/openapi/v3`, or a group version below that.
    OpenApi(Place<'p>),
    /// A resource.
    Resource(Target),
}

/// A document of discovery.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Discovery<'p> {
    /// `/api`.
    Core,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(&'p str),
    /// `/apis/GROUP/VERSION` or `/api/v1`.
    Version(&'p str, &'p str),
}

/// The resource a request works on.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) resource: Arc<Resource>,
    /// None: all namespaces, or a resource without.
    pub(crate) namespace: Option<String>,
    /// None: the collection.
    pub(crate) name: Option<String>,
    /// Whether its `/status` is meant.
    pub(crate) status: bool,
}

impl<'p> Route<'p> {
    /// Finds the route of a decoded path, split at its slashes; none is 404.
    pub(crate) fn find(segments: &[&'p str], registry: &Registry) -> Option<Self> {
        match segments {
            ["healthz" | "readyz" | "livez"] => Some(Self::Health),
            ["version"] => Some(Self::Version),
            ["openapi", "v2"] => Some(Self::OpenApi(Place::Everything)),
            ["openapi", "v3"] => Some(Self::OpenApi(Place::Index)),
            ["openapi", "v3", "api", version] => Some(Self::OpenApi(Place::Version("", version))),
            ["openapi", "v3", "apis", group, version] => {
                Some(Self::OpenApi(Place::Version(group, version)))
            }
            ["api"] => Some(Self::Discovery(Discovery::Core)),
            ["apis"] => Some(Self::Discovery(Discovery::Groups)),
            ["api", version] => Some(Self::Discovery(Discovery::Version("", version))),
            ["apis", group] => Some(Self::Discovery(Discovery::Group(group))),
            ["apis", group, version] => Some(Self::Discovery(Discovery::Version(group, version))),
            ["api", version, rest @ ..] => target(registry, ("", version), rest),
            ["apis", group, version, rest @ ..] => target(registry, (group, version), rest),
            _ => None,
        }
    }
}

fn target<'p>(
    registry: &Registry,
    (group, version): (&str, &str),
    rest: &[&str],
) -> Option<Route<'p>> {
    let find = |plural: &str, namespaced: bool| {
        let resource = registry.find(group, version, plural)?;
        (!namespaced || resource.namespaced).then(|| Arc::clone(resource))
    };
    let (resource, namespace, below) = match rest {
        ["namespaces", namespace, plural, below @ ..] if find(plural, true).is_some() => {
            (find(plural, true)?, Some((*namespace).to_owned()), below)
        }
        [plural, below @ ..] => (find(plural, false)?, None, below),
        [] => return None,
    };
    let (name, status) = match below {
        [] => (None, false),
        [name] => (Some((*name).to_owned()), false),
        [name, "status"] if resource.has_status => (Some((*name).to_owned()), true),
        _ => return None,
    };
    let whole = namespace.is_some() || name.is_none() || !resource.namespaced;
    whole.then_some(Route::Resource(Target { resource, namespace, name, status }))
}

/// Splits a path and decodes its segments; none if one is empty or not UTF-8.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/')
        .map(|segment| percent_decode(segment, false).filter(|segment| !segment.is_empty()))
        .collect()
}

/// Undoes percent-encoding, and `+` for a space where a form is meant.
fn percent_decode(text: &str, form: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (bytes.next()?, bytes.next()?);
                let digit =
                    |byte| char::from(byte).to_digit(16).and_then(|digit| digit.try_into().ok());
                let (high, low): (u8, u8) = (digit(high)?, digit(low)?);
                high << 4 | low
            }
            b'+' if form => b' ',
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok()
}

/// The options of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

/// What to do with fields that the schema does not know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl Query {
    /// Reads a query; a pair that cannot be decoded is 400.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        text.split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                percent_decode(name, true).zip(percent_decode(value, true)).ok_or_else(|| {
                    ApiError::bad_request(format!("the query is not encoded rightly: {pair:?}"))
                })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// An option's value; empty when absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    /// Whether an option is on, as the real server reads it: anything but `false` and `0`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        let value = self.0.iter().find(|(known, _)| known == name);
        value.is_some_and(|(_, value)| !["false", "0"].contains(&value.as_str()))
    }

    /// A number; none when absent or 0.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let text = self.text(name);
        let text = if text.is_empty() { "0" } else { text };
        let number: u64 = text.parse().map_err(|_| {
            ApiError::bad_request(format!("{name}: {text:?} is not a whole number, 0 or more"))
        })?;
        Ok((number > 0).then_some(number))
    }

    /// Whether nothing shall be kept.
    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        match self.text("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => {
                let cause = Cause::not_supported("dryRun", &other.into(), &["All".into()]);
                Err(ApiError::invalid_options("WriteOptions", "meta.k8s.io", vec![cause]))
            }
        }
    }

    /// What to do with unknown and repeated fields; the server warns unless told otherwise.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.text("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            other => {
                let known = ["Ignore".into(), "Strict".into(), "Warn".into()];
                let cause = Cause::not_supported("fieldValidation", &other.into(), &known);
                Err(ApiError::invalid_options("WriteOptions", "meta.k8s.io", vec![cause]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static REGISTRY: LazyLock<Registry> = LazyLock::new(|| Registry::read(&[]).unwrap());

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn group(words: &[&str], group: &str, version: &str) -> Vec<String> {
        match group {
            "" => [owned(words), owned(&["api", version])].concat(),
            group => [owned(words), owned(&["apis", group, version])].concat(),
        }
    }

    /// The segments that lead to a route; none for those that several lead to.
    fn written(route: &Route<'_>) -> Option<Vec<String>> {
        Some(match route {
            Route::Health => return None,
            Route::Version => owned(&["version"]),
            Route::Discovery(Discovery::Core) => owned(&["api"]),
            Route::Discovery(Discovery::Groups) => owned(&["apis"]),
            Route::Discovery(Discovery::Group(name)) => owned(&["apis", name]),
            Route::Discovery(Discovery::Version(name, version)) => group(&[], name, version),
            Route::OpenApi(Place::Everything) => owned(&["openapi", "v2"]),
            Route::OpenApi(Place::Index) => owned(&["openapi", "v3"]),
            Route::OpenApi(Place::Version(name, version)) => {
                group(&["openapi", "v3"], name, version)
            }
            Route::Resource(Target { resource, namespace, name, status }) => {
                let mut path = group(&[], &resource.group, &resource.version);
                if let Some(namespace) = namespace {
                    path.extend(["namespaces".to_owned(), namespace.clone()]);
                }
                path.push(resource.plural.clone());
                path.extend(name.clone());
                path.extend(status.then(|| "status".to_owned()));
                path
            }
        })
    }

    /// Where a random path would seldom get.
    const BEGINNINGS: [&[&str]; 6] = [
        &[],
        &["api", "v1"],
        &["api", "v1", "namespaces", "x"],
        &["api", "v1", "namespaces", "x", "secrets"],
        &["apis", "authorization.k8s.io", "v1"],
        &["openapi", "v3"],
    ];

    fn any_word() -> impl Strategy<Value = String> {
        let known = prop::sample::select(vec![
            "api",
            "apis",
            "v1",
            "authorization.k8s.io",
            "namespaces",
            "secrets",
            "events",
            "selfsubjectaccessreviews",
            "status",
            "openapi",
            "v2",
            "v3",
            "version",
            "healthz",
        ]);
        prop_oneof![6 => known.prop_map(str::to_owned), 1 => "[a-z]{1,3}", 1 => "\\PC{1,4}"]
    }

    /// A segment as some client may encode it.
    fn encoded(word: &str, plain: &str) -> String {
        let encode = |byte: u8| match char::from(byte) {
            letter if byte.is_ascii() && plain.contains(letter) => letter.to_string(),
            _ => format!("%{byte:02x}"),
        };
        word.bytes().map(encode).collect()
    }

    proptest! {
        #[test]
        fn a_route_is_where_its_path_leads(
            beginning in prop::sample::select(BEGINNINGS.to_vec()),
            words in prop::collection::vec(any_word(), 0..5),
        ) {
            let words = words.iter().map(String::as_str);
            let words: Vec<&str> = beginning.iter().copied().chain(words).collect();
            if let Some(path) = Route::find(&words, &REGISTRY).as_ref().and_then(written) {
                prop_assert_eq!(path, words);
            }
        }

        #[test]
        fn every_place_of_an_object_is_found(
            at in any::<prop::sample::Index>(),
            (namespace, name) in (any_word(), prop::option::of(any_word())),
            (everywhere, status) in any::<(bool, bool)>(),
            plain in "[a-z0-9.]{0,40}",
        ) {
            let resource = Arc::clone(at.get(REGISTRY.resources()));
            let everywhere = !resource.namespaced || everywhere && name.is_none();
            let status = status && resource.has_status && name.is_some();
            let namespace = (!everywhere).then_some(namespace);
            let wanted = Route::Resource(Target { resource, namespace, name, status });
            let path = written(&wanted).unwrap();
            let encode = |word: &String| format!("/{}", encoded(word, &plain));
            let text: String = path.iter().map(encode).collect();
            let segments = segments(&text).unwrap();
            let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
            let found = Route::find(&segments, &REGISTRY);
            prop_assert_eq!(format!("{found:?}"), format!("{:?}", Some(wanted)));
        }

        #[test]
        fn any_path_and_query_are_read_or_refused(text in "[/%a-f0-9&=+]{0,30}|\\PC{0,20}") {
            let segments = segments(&text).unwrap_or_default();
            prop_assert!(segments.iter().all(|segment| !segment.is_empty()));
            let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
            let _found = Route::find(&segments, &REGISTRY);
            let _read = Query::parse(&text);
        }
    }

    #[test]
    fn segments_are_decoded_and_never_empty() {
        let split = |path| segments(path).map(|segments| segments.join("|"));
        assert_eq!(split("/api/v1/a%20b").as_deref(), Some("api|v1|a b"));
        assert_eq!(split("/api/").as_deref(), Some("api"));
        for bad in ["", "/", "api", "/a//b", "/a/%zz", "/a/%f", "/a/%ff"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn queries_are_read() {
        let query = Query::parse("a=1&b=x%3Dy+z&&c&watch=0&limit=5").unwrap();
        assert_eq!((query.text("a"), query.text("b"), query.text("none")), ("1", "x=y z", ""));
        assert!(query.flag("c") && !query.flag("watch") && !query.flag("none"));
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert_eq!(query.number("none").unwrap(), None);
        assert!(query.number("b").is_err());
        assert!(Query::parse("a=%z").is_err());
    }
}
