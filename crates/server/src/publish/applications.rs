//! The applications of the front: under which source each of them publishes.

use std::collections::HashMap;

use eventbus_core::event::{SourceParts, is_name};
use eventbus_core::{Source, limits};
use serde::Deserialize;

/// The sources of applications by name. One that is not named here publishes under a `source-id`
/// that is its name.
#[derive(Clone, Debug, Default)]
pub struct Applications(HashMap<String, Source>);

/// The source of an application, as its settings say: either three parts or an id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplicationSource {
    /// The environment of the source.
    pub source_environment: Option<String>,
    /// The organisation that publishes.
    pub source_namespace: Option<String>,
    /// The type of the source.
    pub source_type: Option<String>,
    /// The source as one id.
    pub source_id: Option<String>,
}

/// Why the settings of an application cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("applications.{name}: {problem}")]
pub struct ApplicationError {
    name: String,
    problem: &'static str,
}

impl Applications {
    /// Checks the settings.
    pub fn new(
        settings: impl IntoIterator<Item = (String, ApplicationSource)>,
    ) -> Result<Self, ApplicationError> {
        let sources = settings.into_iter().map(|(name, settings)| {
            let source = if fits(&name) {
                settings.source(&name)
            } else {
                Err("the name must be letters first, then letters and digits, with single _ - . \
                     between; at most 253")
            };
            source
                .map(|source| (name.clone(), source))
                .map_err(|problem| ApplicationError { name, problem })
        });
        Ok(Self(sources.collect::<Result<_, _>>()?))
    }

    /// The source of the application `name`; `None` where no application can have that name.
    pub(crate) fn source(&self, name: &str) -> Option<Source> {
        let settled = self.0.get(name).cloned();
        settled.or_else(|| fits(name).then(|| Source::from_id(name.into())))
    }
}

impl ApplicationSource {
    fn source(&self, name: &str) -> Result<Source, &'static str> {
        let parts = [&self.source_environment, &self.source_namespace, &self.source_type];
        let source = match (parts.map(Option::as_deref), self.source_id.as_deref()) {
            ([None, None, None], id) => {
                let id = id.unwrap_or(name);
                fits(id).then(|| Source::from_id(id.into()))
            }
            ([Some(environment), Some(namespace), Some(source_type)], None) => {
                [environment, namespace, source_type].into_iter().all(fits).then(|| {
                    Source::from_parts(SourceParts { environment, namespace, source_type })
                })
            }
            _ => {
                return Err("set source_environment, source_namespace and source_type, or \
                            source_id alone");
            }
        };
        source.ok_or(
            "a source is letters first, then letters and digits, with single _ - . between; at \
             most 253",
        )
    }
}

fn fits(name: &str) -> bool {
    is_name(name) && name.len() <= limits::NAME_CHARS
}

/// A path of the front, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrontPath<'a> {
    /// `/{application}/v1/events`
    Events(&'a str),
    /// `/{application}/v1/events/subscribed`
    Subscribed(&'a str),
    /// It begins like one of the front's, and is none.
    Unknown,
}

impl<'a> FrontPath<'a> {
    /// Takes `path` apart; `None` when it does not begin with `/{application}/v1/events`.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let (application, rest) = path.strip_prefix('/')?.split_once('/')?;
        let after = rest.strip_prefix("v1/events")?;
        Some(match after {
            "" if !application.is_empty() => Self::Events(application),
            "/subscribed" if !application.is_empty() => Self::Subscribed(application),
            _ => Self::Unknown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_front_are_told_from_those_of_publish() {
        for (path, expected) in [
            ("/ec-qa/v1/events", Some(FrontPath::Events("ec-qa"))),
            ("/v1/v1/events", Some(FrontPath::Events("v1"))),
            ("/ec-qa/v1/events/subscribed", Some(FrontPath::Subscribed("ec-qa"))),
            ("/ec-qa/v1/events/", Some(FrontPath::Unknown)),
            ("/ec-qa/v1/eventsfoo", Some(FrontPath::Unknown)),
            ("//v1/events", Some(FrontPath::Unknown)),
            ("/v1/events/", None),
            ("/v1/eventsfoo", None),
            ("/", None),
            ("/a/b/v1/events", None),
        ] {
            assert_eq!(FrontPath::of(path), expected, "{path}");
        }
    }

    #[test]
    fn an_application_publishes_under_its_settings_or_its_name() {
        let set = |value: &str| Some(value.to_owned());
        let parts = ApplicationSource {
            source_environment: set("stage"),
            source_namespace: set("com.github"),
            source_type: set("commerce"),
            source_id: None,
        };
        let id = ApplicationSource { source_id: set("other"), ..ApplicationSource::default() };
        let half = ApplicationSource { source_id: None, source_type: None, ..parts.clone() };
        let both = ApplicationSource { source_id: set("other"), ..parts.clone() };
        let applications =
            Applications::new([("shop".to_owned(), parts), ("ec".to_owned(), id)]).unwrap();
        let source = |name| applications.source(name).map(|source| source.as_str().to_owned());
        assert_eq!(source("shop").as_deref(), Some("/stage/com.github/commerce"));
        assert_eq!(source("ec").as_deref(), Some("other"));
        assert_eq!(source("new").as_deref(), Some("new"));
        assert_eq!(source("1new"), None);
        assert!(Applications::new([("shop".to_owned(), half)]).is_err());
        assert!(Applications::new([("shop".to_owned(), both)]).is_err());
    }
}
