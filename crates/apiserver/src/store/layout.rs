//! The tables, and the marks by which the file is known as ours.

/// "evbk" in the file's header: a database without it is somebody else's.
pub(super) const APPLICATION_ID: u32 = 0x6576_626b;

/// The version of the tables below, in the file's header.
pub(super) const FORMAT: u32 = 1;

/// `store` holds the one counter, which begins at 1: to clients the revision 0 means any.
/// `objects.body` is the object as JSON, resourceVersion included. `deletion` is 0 for an object
/// that stays, 1 for one whose finalizers hold it, 2 for one whose deletion waits for what the
/// collector does. `owners` has a row for each owner reference to a kind this server serves;
/// `blocks` when the owner's foreground deletion waits for the object.
pub(super) const TABLES: &str = "
CREATE TABLE store (
    id       INTEGER PRIMARY KEY CHECK (id = 0),
    revision INTEGER NOT NULL
);
INSERT INTO store VALUES (0, 1);
CREATE TABLE resources (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE objects (
    id        INTEGER PRIMARY KEY,
    resource  INTEGER NOT NULL REFERENCES resources (id),
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    uid       TEXT NOT NULL UNIQUE,
    deletion  INTEGER NOT NULL,
    body      BLOB NOT NULL
);
CREATE UNIQUE INDEX objects_key ON objects (resource, namespace, name);
CREATE INDEX objects_namespace ON objects (namespace, deletion) WHERE namespace <> '';
CREATE INDEX objects_pending ON objects (id) WHERE deletion = 2;
CREATE TABLE owners (
    uid    TEXT NOT NULL,
    object INTEGER NOT NULL REFERENCES objects (id),
    blocks INTEGER NOT NULL,
    PRIMARY KEY (uid, object)
) WITHOUT ROWID;
CREATE INDEX owners_object ON owners (object);
";
