//! Who may do what. A user has a role; a role is a list of rules, the same that decide on a
//! request and that answer `kubectl auth can-i`.
//!
//! Nobody but an admin reads Secrets: who may write them may not take them out again.

use std::{collections::BTreeSet, fmt};

use crate::{
    definition::{Registry, Resource},
    status::ApiError,
};

const READ: &[&str] = &["get", "list", "watch"];
const GET: &[&str] = &["get"];
const CREATE: &[&str] = &["create"];
const EVERYTHING: &[&str] = &["*"];
const WRITE: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// No patch: its answer to a guess would tell whether the guess was right.
const WRITE_ONLY: &[&str] = &["create", "delete", "update"];

/// Paths beside the resources that every known user may read.
const PATHS: &[&str] = &[
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/healthz/*",
    "/livez",
    "/livez/*",
    "/metrics",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/readyz/*",
    "/version",
];

/// Paths that anybody may read: they say only whether the server is well.
const OPEN: &[&str] =
    &["/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*", "/version"];

/// Who a request comes from; an extension of every request that the gate let in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// The name, as Kubernetes would write it.
    pub name: String,
    /// What the user may do.
    pub role: Role,
}

/// What a user may do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Role {
    /// Everything.
    Admin,
    /// To read and write what lies in these namespaces, but only to write Secrets.
    Editor(Scope),
    /// To read what lies in these namespaces, except Secrets.
    Viewer(Scope),
    /// Nothing: nobody knows who it is.
    Nobody,
}

/// The namespaces in which a role counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Scope {
    /// All, and the names of the namespaces themselves.
    Everywhere,
    /// Only these.
    Within(BTreeSet<String>),
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wish<'w> {
    pub(crate) verb: &'w str,
    pub(crate) group: &'w str,
    /// The plural name.
    pub(crate) resource: &'w str,
    pub(crate) subresource: &'w str,
    /// Empty: in all namespaces, or without one.
    pub(crate) namespace: &'w str,
    pub(crate) name: &'w str,
}

/// A permission, as the answer to `kubectl auth can-i --list` writes it.
#[derive(Debug)]
pub(crate) struct Rule<'r> {
    pub(crate) verbs: &'static [&'static str],
    pub(crate) group: &'r str,
    pub(crate) resources: Vec<String>,
}

impl User {
    /// The program itself, which passes no gate.
    pub(crate) fn in_process() -> Self {
        Self { name: "system:eventbus".into(), role: Role::Admin }
    }

    /// Whoever shows no token.
    pub(crate) fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), role: Role::Nobody }
    }

    /// The groups, as Kubernetes names the like.
    pub(crate) fn groups(&self) -> Vec<&'static str> {
        let known = "system:authenticated";
        match self.role {
            Role::Admin => vec!["system:masters", known],
            Role::Editor(_) => vec!["eventbus:editor", known],
            Role::Viewer(_) => vec!["eventbus:viewer", known],
            Role::Nobody => vec!["system:unauthenticated"],
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Admin => "admin",
            Self::Editor(_) => "editor",
            Self::Viewer(_) => "viewer",
            Self::Nobody => "nobody",
        })
    }
}

impl Role {
    /// The namespaces in which it counts, as people write them: `stage,shop`, or `*` for all.
    pub fn namespaces(&self) -> String {
        match self {
            Self::Editor(Scope::Within(named)) | Self::Viewer(Scope::Within(named)) => {
                named.iter().map(String::as_str).collect::<Vec<_>>().join(",")
            }
            _ => "*".into(),
        }
    }
}

impl Scope {
    fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Within(namespaces) => namespaces.contains(namespace),
        }
    }
}

impl Rule<'_> {
    fn allows(&self, wish: &Wish<'_>) -> bool {
        let resource = match wish.subresource {
            "" => wish.resource.to_owned(),
            part => format!("{}/{part}", wish.resource),
        };
        let among = |known: &str, wanted: &str| known == "*" || known == wanted;
        self.verbs.iter().any(|verb| among(verb, wish.verb))
            && among(self.group, wish.group)
            && self.resources.iter().any(|known| among(known, &resource))
    }
}

/// Refuses what the user may not do, in Kubernetes' words.
pub(crate) fn check(
    registry: &Registry,
    user: &User,
    resource: &Resource,
    wish: &Wish<'_>,
) -> Result<(), ApiError> {
    if is_allowed(registry, user, wish) {
        return Ok(());
    }
    let part = match wish.subresource {
        "" => String::new(),
        part => format!("/{part}"),
    };
    let place = match wish.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let why = format!(
        "User {:?} cannot {} resource \"{}{part}\" in API group \"{}\" {place}",
        user.name, wish.verb, wish.resource, wish.group
    );
    Err(ApiError::forbidden(resource, wish.name, &why))
}

/// Whether the user may do this.
pub(crate) fn is_allowed(registry: &Registry, user: &User, wish: &Wish<'_>) -> bool {
    // A namespace lies in itself, as on the real server.
    let is_namespace = wish.group.is_empty() && wish.resource == "namespaces";
    let place = if is_namespace && wish.namespace.is_empty() { wish.name } else { wish.namespace };
    rules(registry, user, place).iter().any(|rule| rule.allows(wish))
}

/// What the user may do in a namespace; in the empty one: in all, and without one.
pub(crate) fn rules<'r>(registry: &'r Registry, user: &User, namespace: &str) -> Vec<Rule<'r>> {
    let (scope, edits) = match &user.role {
        Role::Nobody => return Vec::new(),
        Role::Admin => {
            let resources = vec!["*".into()];
            return vec![Rule { verbs: EVERYTHING, group: "*", resources }];
        }
        Role::Editor(scope) => (scope, true),
        Role::Viewer(scope) => (scope, false),
    };
    let covered = scope.covers(namespace);
    let everywhere = *scope == Scope::Everywhere;
    let mut rules: Vec<Rule<'r>> = Vec::new();
    for resource in registry.resources() {
        let verbs = match () {
            () if resource.is_review() => CREATE,
            () if !covered => continue,
            () if resource.is_namespace() => {
                if everywhere {
                    READ
                } else {
                    GET
                }
            }
            () if resource.is_secret() && edits => WRITE_ONLY,
            () if resource.is_secret() => continue,
            () if edits => WRITE,
            () => READ,
        };
        rules.push(Rule {
            verbs,
            group: &resource.group,
            resources: vec![resource.plural.clone()],
        });
        if resource.has_status {
            let resources = vec![format!("{}/status", resource.plural)];
            rules.push(Rule { verbs: GET, group: &resource.group, resources });
        }
    }
    rules
}

/// The paths beside the resources that the user may read.
pub(crate) fn paths(user: &User) -> &'static [&'static str] {
    match user.role {
        Role::Admin => EVERYTHING,
        Role::Editor(_) | Role::Viewer(_) => PATHS,
        Role::Nobody => OPEN,
    }
}

/// What the user may do with them.
pub(crate) fn path_verbs(user: &User) -> &'static [&'static str] {
    if user.role == Role::Admin { EVERYTHING } else { GET }
}

/// The refusal of a path that is no resource.
pub(crate) fn refuse_path(user: &User, verb: &str, path: &str) -> ApiError {
    ApiError::refused(format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name))
}

/// Whether the user may ask for a path that is no resource.
pub(crate) fn may_ask(user: &User, verb: &str, path: &str) -> bool {
    path_verbs(user).iter().any(|known| ["*", verb].contains(known)) && is_among(paths(user), path)
}

/// Whether anybody may ask for a path.
pub(crate) fn is_open(path: &str) -> bool {
    is_among(OPEN, path)
}

fn is_among(paths: &[&str], path: &str) -> bool {
    paths.iter().any(|known| match known.strip_suffix('*') {
        Some(beginning) => path.starts_with(beginning),
        None => path == *known,
    })
}
