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
    (3, "status", Form::Object(&[(1, "phase", Form::Text)])),
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
    (2, "involvedObject", Form::Object(REFERENCE)),
    (3, "reason", Form::Text),
    (4, "message", Form::Text),
    (5, "source", Form::Object(&[(1, "component", Form::Text), (2, "host", Form::Text)])),
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
    (13, "related", Form::Object(REFERENCE)),
    (14, "reportingComponent", Form::Text),
    (15, "reportingInstance", Form::Text),
];

const REFERENCE: Layout = &[
    (1, "kind", Form::Text),
    (2, "namespace", Form::Text),
    (3, "name", Form::Text),
    (4, "uid", Form::Text),
    (5, "apiVersion", Form::Text),
    (6, "resourceVersion", Form::Text),
    (7, "fieldPath", Form::Text),
];

const ACCESS_REVIEW: Layout = &[
    (1, "metadata", Form::Object(METADATA)),
    (
        2,
        "spec",
        Form::Object(&[
            (
                1,
                "resourceAttributes",
                Form::Object(&[
                    (1, "namespace", Form::Text),
                    (2, "verb", Form::Text),
                    (3, "group", Form::Text),
                    (4, "version", Form::Text),
                    (5, "resource", Form::Text),
                    (6, "subresource", Form::Text),
                    (7, "name", Form::Text),
                ]),
            ),
            (
                2,
                "nonResourceAttributes",
                Form::Object(&[(1, "path", Form::Text), (2, "verb", Form::Text)]),
            ),
        ]),
    ),
];

const RULES_REVIEW: Layout = &[
    (1, "metadata", Form::Object(METADATA)),
    (2, "spec", Form::Object(&[(1, "namespace", Form::Text)])),
];

const SUBJECT_REVIEW: Layout = &[(1, "metadata", Form::Object(METADATA))];

const DELETE_OPTIONS: Layout = &[
    (1, "gracePeriodSeconds", Form::OptionalNumber),
    (
        2,
        "preconditions",
        Form::Object(&[(1, "uid", Form::Text), (2, "resourceVersion", Form::Text)]),
    ),
    (3, "orphanDependents", Form::Switch),
    (4, "propagationPolicy", Form::Text),
    (5, "dryRun", Form::Texts),
];
