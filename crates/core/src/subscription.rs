//! The Subscription as the bus runs it: checked, converted, free of how it was written.

use std::time::Duration;

use crate::broker::CursorId;
use crate::event::{Interest, Source, SourceParts, Text};
use crate::limits;
use crate::manifest::{
    ActivationSource, ConditionType, DeliveryFormat, EventActivationSpec, SubscriptionSource,
    SubscriptionSpec, SubscriptionStatus,
};

/// One Subscription, of either API group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Who it is.
    pub identity: Identity,
    /// Which events it gets.
    pub interest: Interest,
    /// Where they go.
    pub endpoint: Text,
    /// How many requests may be under way at once: 1 to 400.
    pub max_inflight: u32,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// Does each delivery name the Subscription?
    pub names_itself: bool,
    /// In which form events are delivered.
    pub format: DeliveryFormat,
    /// What the bus last said about it.
    pub status: SubscriptionStatus,
}

/// Who a resource is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its uid: what its cursor is named by.
    pub uid: Text,
    /// Its API group.
    pub group: &'static str,
    /// Its namespace.
    pub namespace: Text,
    /// Its name.
    pub name: Text,
    /// Counts the changes of its spec.
    pub generation: i64,
    /// Its version. Opaque but for one thing: along the writes of one kind it grows.
    pub resource_version: u64,
    /// When it was created: milliseconds since 1970, in whole seconds.
    pub created_ms: u64,
}

/// Why a manifest cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It names no source.
    #[error("it names no source: set exactly one of {0}")]
    NoSource(&'static str),
    /// It names two.
    #[error("it names two sources: set exactly one of {0}")]
    TwoSources(&'static str),
}

impl TryFrom<(Identity, SubscriptionSpec, SubscriptionStatus)> for Subscription {
    type Error = ManifestError;

    fn try_from(
        (identity, spec, status): (Identity, SubscriptionSpec, SubscriptionStatus),
    ) -> Result<Self, ManifestError> {
        let one_of = "spec.source and spec.source_id";
        let parts = spec.source.as_ref().map(SubscriptionSource::parts);
        let timeout_ms = match spec.push_request_timeout_ms {
            ..=0 => limits::PUSH_TIMEOUT_DEFAULT_MS,
            ms => ms.unsigned_abs().min(limits::PUSH_TIMEOUT_MAX_MS),
        };
        Ok(Self {
            interest: Interest {
                source: source(parts, spec.source_id.clone(), one_of)?,
                event_type: spec.event_type.into(),
                event_type_version: spec.event_type_version.into(),
            },
            endpoint: spec.endpoint.into(),
            max_inflight: spec.max_inflight.unsigned_abs().clamp(1, limits::MAX_INFLIGHT_MAX),
            timeout: Duration::from_millis(timeout_ms.into()),
            names_itself: spec.include_subscription_name_header,
            format: spec.delivery.unwrap_or_default().format,
            identity,
            status,
        })
    }
}

impl TryFrom<&EventActivationSpec> for Source {
    type Error = ManifestError;

    fn try_from(spec: &EventActivationSpec) -> Result<Self, ManifestError> {
        let parts = spec.source.as_ref().map(ActivationSource::parts);
        source(parts, spec.source_id.clone(), "spec.source and spec.sourceId")
    }
}

fn source(
    parts: Option<SourceParts<'_>>,
    id: Option<String>,
    one_of: &'static str,
) -> Result<Source, ManifestError> {
    match (parts, id) {
        (Some(parts), None) => Ok(Source::from_parts(parts)),
        (None, Some(id)) => Ok(Source::from_id(id.into())),
        (None, None) => Err(ManifestError::NoSource(one_of)),
        (Some(_), Some(_)) => Err(ManifestError::TwoSources(one_of)),
    }
}

impl Subscription {
    /// The cursor that keeps its place.
    pub fn cursor_id(&self) -> CursorId {
        CursorId(self.identity.uid.clone())
    }

    /// Is it active: did the sub-validator find its events activated? This alone lets push deliver.
    pub fn is_active(&self) -> bool {
        self.status.is_true(&ConditionType::EventsActivated)
    }

    /// Are the two the same but for their status and version?
    pub fn runs_like(&self, other: &Self) -> bool {
        self.identity.uid == other.identity.uid
            && self.interest == other.interest
            && self.endpoint == other.endpoint
            && self.max_inflight == other.max_inflight
            && self.timeout == other.timeout
            && self.names_itself == other.names_itself
            && self.format == other.format
            && self.is_active() == other.is_active()
    }
}

impl SubscriptionSource {
    fn parts(&self) -> SourceParts<'_> {
        SourceParts {
            environment: &self.source_environment,
            namespace: &self.source_namespace,
            source_type: &self.source_type,
        }
    }
}

impl ActivationSource {
    fn parts(&self) -> SourceParts<'_> {
        SourceParts {
            environment: &self.environment,
            namespace: &self.namespace,
            source_type: &self.source_type,
        }
    }
}
