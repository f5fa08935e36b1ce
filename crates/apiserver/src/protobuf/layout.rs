//! The kinds that typed clients send, field by field: the numbers are Kubernetes' own.

use super::reader::Entry;

/// What a field's number means: the member's name in JSON and its form.
pub(super) type Layout = &'static [(u64, &'static str, Form)];

/// How a field is written.
pub(super) enum Form {
    Text,
    Texts,
    Number,
    /// A number that may be 0 on purpose.
    OptionalNumber,
    Switch,
    Time,
    Map(Entry),
    Object(Layout),
    Objects(Layout),
    /// An object of texts alone, numbered from 1 in this order.
    Words(&'static [&'static str]),
}

/// The table of a kind, if it has one.
pub(super) fn of(version: &str, kind: &str) -> Option<Layout> {
    let known = KINDS.iter().find(|(known, _)| *known == (version, kind));
    // Options of a deletion come in the version of whatever is deleted.
    let options = (kind == "DeleteOptions").then_some(DELETE_OPTIONS);
    known.map(|(_, layout)| *layout).or(options)
}

/// The kinds with their tables.
pub(super) const KINDS: &[((&str, &str), Layout)] = &[
    (("v1", "Namespace"), NAMESPACE),
    (("v1", "Secret"), SECRET),
    (("v1", "Event"), EVENT),
    (("authorization.k8s.io/v1", "SelfSubjectAccessReview"), ACCESS_REVIEW),
    (("authorization.k8s.io/v1", "SelfSubjectRulesReview"), RULES_REVIEW),
    (("authentication.k8s.io/v1", "SelfSubjectReview"), SUBJECT_REVIEW),
];

/// Without managedFields: whoever writes by protobuf never means to write these.
const METADATA: Layout = &[
    (1, "name", Form::Text),
    (2, "generateName", Form::Text),
    (3, "namespace", Form::Text),
    (4, "selfLink", Form::Text),
    (5, "uid", Form::Text),
    (6, "resourceVersion", Form::Text),
    (7, "generation", Form::Number),
    (8, "creationTimestamp", Form::Time),
    (9, "deletionTimestamp", Form::Time),
    (10, "deletionGracePeriodSeconds", Form::OptionalNumber),
    (11, "labels", Form::Map(Entry::Text)),
    (12, "annotations", Form::Map(Entry::Text)),
    (13, "ownerReferences", Form::Objects(OWNER)),
    (14, "finalizers", Form::Texts),
];

const OWNER: Layout = &[
    (1, "kind", Form::Text),
    (3, "name", Form::Text),
    (4, "uid", Form::Text),
    (5, "apiVersion", Form::Text),
    (6, "controller", Form::Switch),
    (7, "blockOwnerDeletion", Form::Switch),
];

const NAMESPACE: Layout = &[
    (1, "metadata", Form::Object(METADATA)),
    (2, "spec", Form::Object(&[(1, "finalizers", Form::Texts)])),
    (3, "status", Form::Words(&["phase"])),
];

const SECRET: Layout = &[
    (1, "metadata", Form::Object(METADATA)),
    (2, "data", Form::Map(Entry::Bytes)),
    (3, "type", Form::Text),
    (4, "stringData", Form::Map(Entry::Text)),
    (5, "immutable", Form::Switch),
];

const EVENT: Layout = &[
    (1, "metadata", Form::Object(METADATA)),
    (2, "involvedObject", REFERENCE),
    (3, "reason", Form::Text),
    (4, "message", Form::Text),
    (5, "source", Form::Words(&["component", "host"])),
    (6, "firstTimestamp", Form::Time),
    (7, "lastTimestamp", Form::Time),
    (8, "count", Form::Number),
    (9, "type", Form::Text),
    (10, "eventTime", Form::Time),
    (
        11,
        "series",
        Form::Object(&[(1, "count", Form::Number), (2, "lastObservedTime", Form::Time)]),
    ),
    (12, "action", Form::Text),
    (13, "related", REFERENCE),
    (14, "reportingComponent", Form::Text),
    (15, "reportingInstance", Form::Text),
];

const REFERENCE: Form = Form::Words(&[
    "kind",
    "namespace",
    "name",
    "uid",
    "apiVersion",
    "resourceVersion",
    "fieldPath",
]);

const ACCESS_REVIEW: Layout =
    &[(1, "metadata", Form::Object(METADATA)), (2, "spec", Form::Object(ACCESS))];

const ACCESS: Layout = &[
    (
        1,
        "resourceAttributes",
        Form::Words(&["namespace", "verb", "group", "version", "resource", "subresource", "name"]),
    ),
    (2, "nonResourceAttributes", Form::Words(&["path", "verb"])),
];

const RULES_REVIEW: Layout =
    &[(1, "metadata", Form::Object(METADATA)), (2, "spec", Form::Words(&["namespace"]))];

const SUBJECT_REVIEW: Layout = &[(1, "metadata", Form::Object(METADATA))];

const DELETE_OPTIONS: Layout = &[
    (1, "gracePeriodSeconds", Form::OptionalNumber),
    (2, "preconditions", Form::Words(&["uid", "resourceVersion"])),
    (3, "orphanDependents", Form::Switch),
    (4, "propagationPolicy", Form::Text),
    (5, "dryRun", Form::Texts),
];
