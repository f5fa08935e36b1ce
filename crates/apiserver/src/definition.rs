//! The resources served: read from CustomResourceDefinitions (apiextensions.k8s.io/v1), so that the
//! same definitions serve a real cluster and this server. What is built in is written in the same
//! form.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    builtin::Definitions,
    jsonpath::JsonPath,
    schema::{Rules, Schema, SchemaError},
};

/// Why a definition cannot be served.
#[derive(Debug, Error)]
pub enum DefinitionError {
    /// It is not of the form of a CustomResourceDefinition.
    #[error("not a CustomResourceDefinition of apiextensions.k8s.io/v1: {0}")]
    Form(#[from] serde_json::Error),
    /// Its schema asks for what this server does not do.
    #[error("{name}: schema: {source}")]
    Schema {
        /// The definition.
        name: String,
        /// Where and what.
        source: SchemaError,
    },
    /// A path in it cannot be read.
    #[error("{name}: not a JSONPath this server reads: {path}")]
    Path {
        /// The definition.
        name: String,
        /// The path.
        path: String,
    },
    /// It does not have exactly one served version.
    #[error("{0}: exactly one served version is needed")]
    Versions(String),
    /// Two definitions have one name.
    #[error("{0}: defined twice")]
    Twice(String),
}

/// What the server serves, in the order of discovery.
#[derive(Debug)]
pub(crate) struct Registry {
    resources: Vec<Arc<Resource>>,
}

/// One resource: a kind with its name in paths, its schema and its columns.
#[derive(Debug)]
pub(crate) struct Resource {
    /// Its place in the registry.
    pub(crate) index: usize,
    /// Empty for the core group.
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    /// Whether `/status` is written apart.
    pub(crate) has_status: bool,
    pub(crate) schema: Schema,
    pub(crate) rules: Rules,
    /// The schema as written, for OpenAPI.
    pub(crate) written: Value,
    pub(crate) columns: Vec<Column>,
    pub(crate) selectable: Vec<(String, JsonPath)>,
}

/// A column of the table that `kubectl get` prints.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i64,
    pub(crate) path: JsonPath,
}

impl Registry {
    /// Reads the definitions; what is built in comes before and after them.
    pub(crate) fn read(definitions: &[Value]) -> Result<Self, DefinitionError> {
        let Definitions { core, others } = Definitions::read()?;
        let mut resources: Vec<Arc<Resource>> = Vec::new();
        for written in core.iter().chain(definitions).chain(&others) {
            let resource = Resource::read(written, resources.len())?;
            if resources.iter().any(|known| known.qualified() == resource.qualified()) {
                return Err(DefinitionError::Twice(resource.qualified()));
            }
            resources.push(Arc::new(resource));
        }
        Ok(Self { resources })
    }

    /// All resources, by index.
    pub(crate) fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The resource at this index.
    pub(crate) fn at(&self, index: usize) -> Option<&Arc<Resource>> {
        self.resources.get(index)
    }

    /// The built-in Namespace.
    pub(crate) fn namespaces(&self) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|resource| resource.is_namespace())
    }

    /// The resource that a path names.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|resource| {
            resource.group == group && resource.version == version && resource.plural == plural
        })
    }

    /// Whether objects of this kind can exist here.
    pub(crate) fn serves(&self, group: &str, kind: &str) -> bool {
        self.resources.iter().any(|resource| resource.group == group && resource.kind == kind)
    }

    /// The group versions with their resources, in the order of their first resource.
    pub(crate) fn group_versions(&self) -> Vec<(&str, &str, Vec<&Resource>)> {
        let mut found: Vec<(&str, &str, Vec<&Resource>)> = Vec::new();
        for resource in &self.resources {
            let known = found.iter_mut().find(|(group, version, _)| {
                *group == resource.group && *version == resource.version
            });
            match known {
                Some((_, _, resources)) => resources.push(resource),
                None => found.push((&resource.group, &resource.version, vec![resource])),
            }
        }
        found
    }
}

impl Resource {
    /// `plural.group`, as errors and the store name it; `plural` in the core group.
    pub(crate) fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// `group/version`, as objects write it; `version` in the core group.
    pub(crate) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// Whether this is the built-in Namespace.
    pub(crate) fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.kind == "Namespace"
    }

    /// Whether this is the built-in Event.
    pub(crate) fn is_event(&self) -> bool {
        self.group.is_empty() && self.kind == "Event"
    }

    /// Whether this is the built-in Secret.
    pub(crate) fn is_secret(&self) -> bool {
        self.group.is_empty() && self.kind == "Secret"
    }

    /// Whether it is one of those that clients have compiled in, not one that was defined.
    pub(crate) fn is_built_in(&self) -> bool {
        self.group.is_empty() || self.is_lease()
    }

    /// Whether an object may be replaced whatever it is by now, as on the real server. Not a Lease:
    /// it is held by whoever wrote first.
    pub(crate) fn is_replaced_blindly(&self) -> bool {
        self.is_built_in() && !self.is_lease()
    }

    fn is_lease(&self) -> bool {
        self.group == "coordination.k8s.io" && self.kind == "Lease"
    }

    /// Whether its objects count how often their wish changed; what is built in does not.
    pub(crate) fn has_generation(&self) -> bool {
        !self.is_built_in()
    }

    /// Whether its objects are answered and not kept.
    pub(crate) fn is_review(&self) -> bool {
        matches!(self.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io")
    }

    /// What can be done with it.
    pub(crate) fn verbs(&self) -> &'static [&'static str] {
        match () {
            () if self.is_review() => &["create"],
            // One mistyped command would delete everything.
            () if self.is_namespace() => {
                &["create", "delete", "get", "list", "patch", "update", "watch"]
            }
            () => {
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
            }
        }
    }

    /// What an error says of an object, except why.
    pub(crate) fn details(&self, name: &str) -> Value {
        let mut details = json!({ "kind": self.plural });
        if !name.is_empty() {
            details["name"] = name.into();
        }
        if !self.group.is_empty() {
            details["group"] = self.group.as_str().into();
        }
        details
    }

    fn read(written: &Value, index: usize) -> Result<Self, DefinitionError> {
        let Definition { spec } = Definition::deserialize(written)?;
        let name = format!("{}.{}", spec.names.plural, spec.group);
        let mut versions = spec.versions.into_iter().filter(|version| version.served);
        let (Some(version), None) = (versions.next(), versions.next()) else {
            return Err(DefinitionError::Versions(name));
        };
        let path = |text: &str| {
            JsonPath::parse(text)
                .ok_or_else(|| DefinitionError::Path { name: name.clone(), path: text.into() })
        };
        let columns = match version.additional_printer_columns {
            columns if columns.is_empty() => vec![ColumnForm::age()],
            columns => columns,
        };
        let columns = columns
            .into_iter()
            .map(|column| {
                let path = path(&column.json_path)?;
                let ColumnForm { name, kind, format, description, priority, .. } = column;
                Ok(Column { name, kind, format, description, priority, path })
            })
            .collect::<Result<_, DefinitionError>>()?;
        let selectable = version
            .selectable_fields
            .into_iter()
            .map(|field| {
                let parsed = path(&field.json_path)?;
                Ok((field.json_path.trim_start_matches('.').to_owned(), parsed))
            })
            .collect::<Result<_, DefinitionError>>()?;
        let written = version.schema.open_api_v3_schema;
        let schema = Schema::compile(&with_metadata(&written)?)
            .map_err(|source| DefinitionError::Schema { name: name.clone(), source })?;
        let rules = Rules::compile(&written)
            .map_err(|source| DefinitionError::Schema { name: name.clone(), source })?;
        let names = spec.names;
        Ok(Self {
            index,
            group: spec.group,
            version: version.name,
            singular: names.singular.unwrap_or_else(|| names.kind.to_lowercase()),
            plural: names.plural,
            list_kind: names.list_kind.unwrap_or_else(|| format!("{}List", names.kind)),
            kind: names.kind,
            short_names: names.short_names,
            categories: names.categories,
            namespaced: spec.scope == Scope::Namespaced,
            has_status: version.subresources.status.is_some(),
            schema,
            rules,
            written,
            columns,
            selectable,
        })
    }
}

/// The schema of the metadata that every object has, with its descriptions.
pub(crate) fn metadata_schema() -> Result<Value, serde_json::Error> {
    serde_json::from_str(include_str!("metadata.json"))
}

/// The whole object's schema: definitions leave out what all objects have.
fn with_metadata(written: &Value) -> Result<Value, serde_json::Error> {
    let mut whole = written.clone();
    if let Some(properties) = whole
        .as_object_mut()
        .map(|whole| whole.entry("properties").or_insert_with(|| json!({})))
        .and_then(Value::as_object_mut)
    {
        properties.insert("apiVersion".into(), json!({ "type": "string" }));
        properties.insert("kind".into(), json!({ "type": "string" }));
        properties.insert("metadata".into(), metadata_schema()?);
    }
    Ok(whole)
}

#[derive(Deserialize)]
struct Definition {
    spec: DefinitionSpec,
}

#[derive(Deserialize)]
struct DefinitionSpec {
    group: String,
    names: Names,
    scope: Scope,
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    plural: String,
    kind: String,
    singular: Option<String>,
    list_kind: Option<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

#[derive(Deserialize, Eq, PartialEq)]
enum Scope {
    Namespaced,
    Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    name: String,
    #[serde(default)]
    served: bool,
    schema: WrittenSchema,
    #[serde(default)]
    subresources: Subresources,
    #[serde(default)]
    additional_printer_columns: Vec<ColumnForm>,
    #[serde(default)]
    selectable_fields: Vec<FieldForm>,
}

#[derive(Deserialize)]
struct WrittenSchema {
    #[serde(rename = "openAPIV3Schema")]
    open_api_v3_schema: Value,
}

#[derive(Default, Deserialize)]
struct Subresources {
    status: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ColumnForm {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    format: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    priority: i64,
    json_path: String,
}

impl ColumnForm {
    /// The column of a definition that names none.
    fn age() -> Self {
        Self {
            name: "Age".into(),
            kind: "date".into(),
            format: String::new(),
            description: "When the object was created.".into(),
            priority: 0,
            json_path: ".metadata.creationTimestamp".into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FieldForm {
    json_path: String,
}
