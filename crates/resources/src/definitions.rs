//! The definitions of our resources, generated from the manifests of `core`: what the embedded API
//! serves, and what `eventbus crds` prints for a real API server.

use eventbus_core::manifest::{EventActivationSpec, SubscriptionSpec, SubscriptionStatus};
use kube::core::ApiResource;
use kube::core::schema::StructuralSchemaRewriter;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// The only version of all our groups.
const VERSION: &str = "v1alpha1";

/// A kind of resource in one API group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// What it is.
    pub kind: Kind,
    /// The API group it lives in.
    pub group: &'static str,
}

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for events.
    Subscription,
    /// Makes the events of a source available in a namespace.
    EventActivation,
}

/// Every definition, the groups of the seed first: discovery lists them in this order, and
/// `kubectl get subscription` means the first that fits.
pub const DEFINITIONS: [Definition; 4] = [
    Definition { kind: Kind::Subscription, group: "eventing.kyma.cx" },
    Definition { kind: Kind::EventActivation, group: "remoteenvironment.kyma.cx" },
    Definition { kind: Kind::Subscription, group: "eventing.kyma-project.io" },
    Definition { kind: Kind::EventActivation, group: "applicationconnector.kyma-project.io" },
];

impl Kind {
    fn kind(self) -> &'static str {
        match self {
            Self::Subscription => "Subscription",
            Self::EventActivation => "EventActivation",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Subscription => "subscriptions",
            Self::EventActivation => "eventactivations",
        }
    }

    fn singular(self) -> &'static str {
        match self {
            Self::Subscription => "subscription",
            Self::EventActivation => "eventactivation",
        }
    }

    fn short_name(self) -> &'static str {
        match self {
            Self::Subscription => "sub",
            Self::EventActivation => "ea",
        }
    }

    fn schema(self) -> Value {
        let (text, spec, status) = match self {
            Self::Subscription => (
                "Asks for the events of one source, type and version to be pushed to an endpoint.",
                requestable(exactly_one(schema_of::<SubscriptionSpec>(), ["source", "source_id"])),
                Some(schema_of::<SubscriptionStatus>()),
            ),
            Self::EventActivation => (
                "Makes the events of one source available in its namespace.",
                exactly_one(schema_of::<EventActivationSpec>(), ["source", "sourceId"]),
                None,
            ),
        };
        let mut schema = json!({
            "type": "object",
            "description": text,
            "required": ["spec"],
            "properties": { "spec": spec },
        });
        if let Some(status) = status {
            schema["properties"]["status"] = status;
        }
        schema
    }

    fn columns(self) -> Value {
        let column =
            |name: &str, path: &str| json!({ "name": name, "type": "string", "jsonPath": path });
        let wide = |name: &str, path: &str| {
            let mut column = column(name, path);
            column["priority"] = 1.into();
            column
        };
        let age =
            json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" });
        let condition =
            |kind: &str, field: &str| format!(".status.conditions[?(@.type==\"{kind}\")].{field}");
        match self {
            Self::Subscription => json!([
                column("Event Type", ".spec.event_type"),
                column("Version", ".spec.event_type_version"),
                column("Activated", &condition("events-activated", "status")),
                column("Ready", &condition("ready", "status")),
                column("Reason", &condition("ready", "reason")),
                wide("Endpoint", ".spec.endpoint"),
                wide("Source", ".spec.source_id"),
                wide("Environment", ".spec.source.source_environment"),
                wide("Source Namespace", ".spec.source.source_namespace"),
                wide("Source Type", ".spec.source.source_type"),
                age,
            ]),
            Self::EventActivation => json!([
                column("Display Name", ".spec.displayName"),
                column("Source", ".spec.sourceId"),
                column("Environment", ".spec.source.environment"),
                column("Source Namespace", ".spec.source.namespace"),
                column("Source Type", ".spec.source.type"),
                age,
            ]),
        }
    }
}

impl Definition {
    /// How `kube` addresses the resource.
    pub fn api_resource(self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: VERSION.to_owned(),
            api_version: format!("{}/{VERSION}", self.group),
            kind: self.kind.kind().to_owned(),
            plural: self.kind.plural().to_owned(),
        }
    }

    /// Is this the first group of its kind?
    fn is_first(self) -> bool {
        DEFINITIONS.iter().find(|definition| definition.kind == self.kind) == Some(&self)
    }

    /// Short names for `kubectl`: only the first group of a kind has one, or `kubectl` would warn
    /// at each use that it could mean either.
    fn short_names(self) -> Vec<&'static str> {
        if self.is_first() { vec![self.kind.short_name()] } else { Vec::new() }
    }

    /// What `kubectl get all` shows: the first groups, so that who uses one sees nothing of the
    /// other.
    fn categories(self) -> Vec<&'static str> {
        if self.is_first() { vec!["all"] } else { Vec::new() }
    }

    /// The CustomResourceDefinition.
    pub fn manifest(self) -> Value {
        let kind = self.kind;
        let mut version = json!({
            "name": VERSION,
            "served": true,
            "storage": true,
            "schema": { "openAPIV3Schema": kind.schema() },
            "additionalPrinterColumns": kind.columns(),
        });
        if kind == Kind::Subscription {
            version["subresources"] = json!({ "status": {} });
        }
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{}.{}", kind.plural(), self.group) },
            "spec": {
                "group": self.group,
                "scope": "Namespaced",
                "names": {
                    "kind": kind.kind(),
                    "listKind": format!("{}List", kind.kind()),
                    "plural": kind.plural(),
                    "singular": kind.singular(),
                    "shortNames": self.short_names(),
                    "categories": self.categories(),
                },
                "versions": [version],
            },
        })
    }
}

/// The schema of `T` in the form that an API server takes.
fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let generator = settings.with_transform(StructuralSchemaRewriter).into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

/// Takes away what an API server does not know or what says nothing.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.remove("title");
            if let Some(Value::String(text)) = members.get_mut("description") {
                *text = joined(text);
            }
            members.remove("nullable");
            if members.get("format").is_some_and(|format| format == "int32" || format == "int64") {
                members.remove("format");
            }
            // JSON Schema writes the bounds of an integer as numbers with a point.
            for bound in ["minimum", "maximum"] {
                let whole = members.get(bound).and_then(Value::as_f64).map(|bound| bound as i64);
                if let Some(whole) = whole {
                    members.insert(bound.to_owned(), whole.into());
                }
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// A text whose lines end only where its paragraphs do: the others end where the source's do.
fn joined(text: &str) -> String {
    let paragraphs = text.split("\n\n");
    let joined = paragraphs.map(|paragraph| paragraph.lines().collect::<Vec<_>>().join(" "));
    joined.collect::<Vec<_>>().join("\n\n")
}

fn exactly_one(mut spec: Value, [one, other]: [&str; 2]) -> Value {
    spec["x-kubernetes-validations"] = json!([{
        "rule": format!("has(self.{one}) != has(self.{other})"),
        "message": format!("set exactly one of {one} and {other}"),
    }]);
    spec
}

/// A URL with a host and, where it names one, a port that there can be. A pattern rather than the
/// functions for URLs: those of two servers do not agree on what a host is.
const REQUESTABLE: &str = concat!(
    "^https?://([^/?#@ ]*@)?",
    r"(\\[[0-9a-fA-F:.]+\\]|[^\\[\\]/?#@: ]+)",
    "(:(6553[0-5]|655[0-2][0-9]|65[0-4][0-9][0-9]|6[0-4][0-9][0-9][0-9]|[1-5]?[0-9]{1,4}))?",
    "([/?#][^ ]*)?$",
);

/// The endpoint must be a URL that can be requested.
fn requestable(mut spec: Value) -> Value {
    spec["properties"]["endpoint"]["x-kubernetes-validations"] = json!([{
        "rule": format!("self.matches('{REQUESTABLE}')"),
        "message": "must be a URL with a host, such as https://shop.example/events",
    }]);
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_what_users_of_a_real_api_server_apply() {
        let [subscription, activation, ..] = DEFINITIONS.map(Definition::manifest);
        assert_eq!(subscription["metadata"]["name"], "subscriptions.eventing.kyma.cx");
        let schema = &subscription["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let spec = &schema["properties"]["spec"];
        assert_eq!(spec["required"], json!(["endpoint", "event_type", "event_type_version"]));
        assert_eq!(
            spec["properties"]["max_inflight"],
            json!({
                "type": "integer", "minimum": 1, "maximum": 400, "default": 10,
                "description": spec["properties"]["max_inflight"]["description"],
            })
        );
        assert_eq!(spec["properties"]["endpoint"]["maxLength"], 512);
        let rule = &spec["x-kubernetes-validations"][0];
        assert_eq!(rule["rule"], "has(self.source) != has(self.source_id)");
        let conditions = &schema["properties"]["status"]["properties"]["conditions"];
        let status = &conditions["items"]["properties"]["status"];
        assert_eq!(status["enum"], json!(["True", "False", "Unknown"]));
        // By its type, each condition is its own writer's.
        assert_eq!(conditions["x-kubernetes-list-type"], "map");
        assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
        assert_eq!(conditions["items"]["required"], json!(["status", "type"]));
        let names = &activation["spec"]["names"];
        assert_eq!(names["shortNames"], json!(["ea"]));
        let categories =
            DEFINITIONS.map(|one| one.manifest()["spec"]["names"]["categories"].take());
        assert_eq!(categories, [json!(["all"]), json!(["all"]), json!([]), json!([])]);
        // Nothing that a structural schema may not hold.
        let text = subscription.to_string();
        for unknown in ["$ref", "$schema", "anyOf", "definitions"] {
            assert!(!text.contains(unknown), "{unknown} in {text}");
        }
    }

    /// Every text in a definition that says what something is.
    fn descriptions(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("description").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| descriptions(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| descriptions(value, found)),
            _ => {}
        }
    }

    #[test]
    fn no_description_carries_the_line_breaks_of_the_source() {
        let mut found = Vec::new();
        for definition in DEFINITIONS {
            descriptions(&definition.manifest(), &mut found);
        }
        assert!(found.len() > 50, "{}", found.len());
        for text in found {
            assert!(!text.replace("\n\n", "").contains('\n'), "{text}");
        }
    }
}
