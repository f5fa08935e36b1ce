//! Reading: one object, or a page of a list as of one revision.
//!
//! A page of an old revision is today's page with the changes since then taken back: the ring keeps
//! what each object was before. So the pages of one list show one moment, without a second copy of
//! anything on disk; and when the ring no longer reaches back that far, the list has expired.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Rows, params};

use super::{
    Key, Overrun, Ring, Shared, Store,
    room::{Full, Held, Room},
};
use crate::{limits, selector::Selection, status::ApiError};

/// Which objects to read.
#[derive(Clone, Debug)]
pub(crate) struct PageRequest {
    /// The resource's index.
    pub(crate) resource: usize,
    /// Only this namespace; none: all.
    pub(crate) namespace: Option<String>,
    /// Only what follows this namespace and name.
    pub(crate) after: Option<Place>,
    /// As of this revision; none: now.
    pub(crate) revision: Option<u64>,
    /// At most so many; none: all.
    pub(crate) limit: Option<usize>,
    /// About so many bytes, for who comes back for the rest at once; none: all, if there is room
    /// for it among all answers.
    pub(crate) bytes: Option<usize>,
    /// Only what is selected.
    pub(crate) selection: Arc<Selection>,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    /// The revision it shows: that of the resource's newest change, so that it stays while only
    /// others change.
    pub(crate) revision: u64,
    /// The objects, by namespace and name.
    pub(crate) bodies: Held,
    /// Where the next page starts, when there is one.
    pub(crate) next: Option<Place>,
    /// How many objects follow; counted only when nothing selects among them.
    pub(crate) remaining: Option<u64>,
}

/// Why a page cannot be read.
#[derive(Debug)]
pub(crate) enum PageError {
    /// The revision is no longer kept.
    Expired,
    /// Too much waits to be sent already.
    Full,
    /// Anything else.
    Failed(ApiError),
}

impl<E: Into<ApiError>> From<E> for PageError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Where an object stands in a list: its namespace and name.
type Place = (String, String);

impl Store {
    /// The object at `key`.
    pub(crate) async fn get(&self, key: Key) -> Result<Option<Bytes>, ApiError> {
        let id = self.resource_id(key.resource)?;
        self.read(move |connection, shared| {
            let mut statement = connection.prepare_cached(
                "SELECT body FROM objects WHERE resource = ?1 AND namespace = ?2 AND name = ?3",
            )?;
            let body: Option<Vec<u8>> = statement
                .query_row(params![id, key.namespace, key.name], |row| row.get(0))
                .optional()?;
            let place = (key.namespace.as_str(), key.name.as_str());
            body.map(|body| shared.open(key.resource, place, body)).transpose()
        })
        .await
    }

    /// A page of a list.
    pub(crate) async fn page(&self, request: PageRequest) -> Result<Page, PageError> {
        let id = self.resource_id(request.resource)?;
        let room = self.room.clone();
        let page = self
            .read(move |connection, shared| {
                let snapshot = connection.unchecked_transaction()?;
                Ok(read_page((&snapshot, shared, &room), id, &request))
            })
            .await;
        page.map_err(PageError::Failed)?
    }

    fn resource_id(&self, resource: usize) -> Result<i64, ApiError> {
        let id = self.shared.ids.get(resource).copied();
        id.ok_or_else(|| ApiError::internal("no such resource".into()))
    }
}

fn read_page(
    (connection, shared, room): (&Connection, &Shared, &Room),
    id: i64,
    request: &PageRequest,
) -> Result<Page, PageError> {
    let present: i64 =
        connection.prepare_cached("SELECT revision FROM store")?.query_row([], |row| row.get(0))?;
    let present = present.unsigned_abs();
    let (revision, past) = match request.revision {
        Some(revision) => (revision, changed_since(shared, request, revision, present)?),
        None => (ring(shared, request.resource, present)?.newest(present), BTreeMap::new()),
    };
    let counted = past.is_empty() && request.selection.is_everything();
    let (namespace, name) = request.after.clone().unwrap_or_default();
    let mut statement = connection.prepare_cached(match request.namespace {
        Some(_) => {
            "SELECT namespace, name, body FROM objects WHERE resource = ?1 \
             AND namespace = ?2 AND name > ?3 ORDER BY name"
        }
        None => {
            "SELECT namespace, name, body FROM objects WHERE resource = ?1 \
             AND (namespace, name) > (?2, ?3) ORDER BY namespace, name"
        }
    })?;
    let within = request.namespace.as_ref().unwrap_or(&namespace);
    let rows = statement.query(params![id, within, name])?;
    let mut moment = Moment { rows, ahead: None, past, resource: request.resource, shared };
    let mut page = Page { revision, bodies: Held::default(), next: None, remaining: None };
    let (mut last, mut bytes) = (None, 0);
    while let Some((place, body)) = moment.next()? {
        if !request.selection.selects((&place.0, &place.1), &body)? {
            continue;
        }
        let enough = request.bytes.is_some_and(|enough| bytes >= enough);
        if enough || request.limit == Some(page.bodies.len()) {
            page.next = last;
            break;
        }
        bytes += body.len();
        if request.bytes.is_none() {
            room.take(&mut page.bodies, body.len()).map_err(|Full| PageError::Full)?;
        }
        page.bodies.push(body);
        last = Some(place);
    }
    if let Some(next) = &page.next
        && counted
    {
        page.remaining = Some(remaining(connection, id, request.namespace.is_some(), next)?);
    }
    Ok(page)
}

/// The table as it was at a moment, in order: today's rows, and in place of what changed since,
/// what it was.
struct Moment<'s> {
    rows: Rows<'s>,
    ahead: Option<(Place, Bytes)>,
    past: BTreeMap<Place, Option<Bytes>>,
    resource: usize,
    shared: &'s Shared,
}

impl Moment<'_> {
    fn next(&mut self) -> Result<Option<(Place, Bytes)>, ApiError> {
        loop {
            if self.ahead.is_none() {
                self.ahead = self.unchanged()?;
            }
            let past_first = match (&self.ahead, self.past.first_key_value()) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some((ahead, _)), Some((place, _))) => place < ahead,
            };
            if !past_first {
                return Ok(self.ahead.take());
            }
            if let Some((place, Some(body))) = self.past.pop_first() {
                return Ok(Some((place, body)));
            }
        }
    }

    fn unchanged(&mut self) -> Result<Option<(Place, Bytes)>, ApiError> {
        while let Some(row) = self.rows.next()? {
            let place: Place = (row.get(0)?, row.get(1)?);
            if !self.past.contains_key(&place) {
                let body = self.shared.open(self.resource, (&place.0, &place.1), row.get(2)?)?;
                return Ok(Some((place, body)));
            }
        }
        Ok(None)
    }
}

/// What changed between a revision and now, as it was at that revision; none: it was not there.
fn changed_since(
    shared: &Shared,
    request: &PageRequest,
    revision: u64,
    present: u64,
) -> Result<BTreeMap<Place, Option<Bytes>>, PageError> {
    let mut past = BTreeMap::new();
    if revision >= present {
        return Ok(past);
    }
    let ring = ring(shared, request.resource, present)?;
    let events = ring.after(revision, usize::MAX).map_err(|Overrun| PageError::Expired)?;
    for event in events.iter().take_while(|event| event.revision <= present) {
        let place = (event.namespace.to_string(), event.name.to_string());
        let inside = request.namespace.as_ref().is_none_or(|namespace| *namespace == place.0);
        let ahead = request.after.as_ref().is_none_or(|after| *after < place);
        if inside && ahead {
            past.entry(place).or_insert_with(|| event.before.clone());
        }
    }
    Ok(past)
}

/// The ring of the resource, once it holds what the table holds.
fn ring(shared: &Shared, resource: usize, present: u64) -> Result<&Ring, ApiError> {
    // The table may be a moment ahead of the rings. This thread is one that may block.
    if *shared.published.borrow() < present {
        let mut published = shared.published.subscribe();
        let caught_up = published.wait_for(|published| *published >= present);
        let caught_up = tokio::time::timeout(limits::FRESH_WAIT, caught_up);
        let caught_up = tokio::runtime::Handle::current().block_on(caught_up);
        caught_up.map_err(|_| ApiError::closing())?.map_err(|_| ApiError::closing())?;
    }
    let ring = shared.rings.get(resource).map(AsRef::as_ref);
    ring.ok_or_else(|| ApiError::internal("no such resource".into()))
}

fn remaining(
    connection: &Connection,
    id: i64,
    one_namespace: bool,
    next: &Place,
) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached(if one_namespace {
        "SELECT COUNT(*) FROM objects WHERE resource = ?1 AND namespace = ?2 AND name > ?3"
    } else {
        "SELECT COUNT(*) FROM objects WHERE resource = ?1 AND (namespace, name) > (?2, ?3)"
    })?;
    let count: i64 = statement.query_row(params![id, next.0, next.1], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}
