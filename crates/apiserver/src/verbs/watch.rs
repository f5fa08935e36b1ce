//! Watch: the present state if asked for, then every change, in one stream.
//!
//! A watch is a state machine inside the answer's body: no task, no queue of its own. It takes from
//! the ring what the client has room for; a client too slow for the ring is told that its revision
//! is gone (410, inside the stream) and lists again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use http::{Response, StatusCode};
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::Instant,
};

use super::{Api, Call, list};
use crate::{
    accept::{Encoding, Shape},
    body::Body,
    definition::Resource,
    limits, object,
    render::{self, Form},
    route::Query,
    selector::Selection,
    status::{ApiError, Cause},
    store::{Event, EventKind, Overrun, PageError, PageRequest, Ring},
    users::Standing,
};

/// Starts a watch.
pub(crate) async fn watch(api: &Arc<Api>, call: &Call) -> Result<Response<Body>, ApiError> {
    if initial_events(&call.query)? == Some(true)
        && let Some(revision) = list::revision(&call.query)?
    {
        list::wait_until_fresh(api, revision).await?;
    }
    let watch = Watch::start(api, call)?;
    let lines = stream::unfold(watch, |mut watch| async move {
        let line = watch.next().await?;
        Some((line, watch))
    });
    // One JSON object a line, whatever form was asked for: YAML has no such stream.
    Ok(render::respond(StatusCode::OK, Encoding::Json, Body::stream(lines)))
}

/// A watch that runs.
struct Watch {
    api: Arc<Api>,
    resource: Arc<Resource>,
    ring: Arc<Ring>,
    form: Form,
    selection: Arc<Selection>,
    namespace: Option<String>,
    phase: Phase,
    /// Lines that wait to be sent.
    ready: VecDeque<Bytes>,
    /// Everything up to this revision was looked at.
    seen: u64,
    bookmarks: Bookmarks,
    /// Whether the next table need not name its columns.
    rows_only: bool,
    ends: Instant,
    newest: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    /// What may be taken from whoever watches, and when it is looked after next.
    standing: Option<(Standing, Instant)>,
    /// Its place among those that are served; the program's own need none.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Phase {
    /// Sends what is there, from the place on.
    Present { after: Option<(String, String)>, revision: Option<u64> },
    /// Sends what changes.
    Live,
    /// Says nothing more.
    Ended,
}

/// Which bookmarks a client gets, and when.
#[derive(Debug)]
struct Bookmarks {
    allowed: bool,
    /// Whether the end of the present state is marked.
    initial: bool,
    next: Instant,
}

impl Watch {
    fn start(api: &Arc<Api>, call: &Call) -> Result<Self, ApiError> {
        let (resource, query) = (call.resource(), &call.query);
        let place = call.user.as_ref().map(|_| Arc::clone(&api.watches).try_acquire_owned());
        let place = place.transpose().map_err(|_| ApiError::too_many())?;
        let labels = query.text("labelSelector");
        let mut fields = query.text("fieldSelector").to_owned();
        if let Some(name) = &call.target.name {
            fields = format!("metadata.name={name}");
        }
        let selection = Selection::parse(labels, &fields, resource)?;
        let asked = list::revision(query)?;
        let list_first = initial_events(query)?.unwrap_or(asked.is_none());
        let allowed = query.flag("allowWatchBookmarks");
        let now = Instant::now();
        let lasts = match query.number("timeoutSeconds")? {
            Some(seconds) => Duration::from_secs(seconds).min(limits::WATCH_LASTS * 2),
            None => {
                // Watches begun together shall not all come back together.
                let spread = api.entropy.next_u64() % limits::WATCH_LASTS.as_secs();
                limits::WATCH_LASTS + Duration::from_secs(spread)
            }
        };
        let phase = match list_first {
            true => Phase::Present { after: None, revision: None },
            false => Phase::Live,
        };
        let ring = api.store.ring(resource.index)?;
        let published = *api.store.published().borrow();
        Ok(Self {
            resource: Arc::clone(resource),
            newest: ring.follow(),
            closing: api.closing.subscribe(),
            standing: call.standing.clone().map(|standing| (standing, now)),
            _place: place,
            ring,
            form: call.form,
            selection: Arc::new(selection),
            namespace: call.target.namespace.clone(),
            phase,
            ready: VecDeque::new(),
            seen: asked.unwrap_or(published),
            bookmarks: Bookmarks {
                allowed,
                initial: list_first && allowed,
                next: now + limits::BOOKMARK_EVERY,
            },
            rows_only: false,
            ends: now + lasts,
            api: Arc::clone(api),
        })
    }

    /// The next line; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if matches!(self.phase, Phase::Ended) {
                return None;
            }
            let step = self.step().await;
            if let Err(error) = step {
                self.ready.push_back(render::line("ERROR", error.status().to_string().as_bytes()));
                self.phase = Phase::Ended;
            }
        }
    }

    /// Finds more lines, or waits for them.
    async fn step(&mut self) -> Result<(), ApiError> {
        if !self.may_go_on()? {
            self.phase = Phase::Ended;
        }
        match &self.phase {
            Phase::Ended => Ok(()),
            Phase::Present { after, revision } => {
                let (after, revision) = (after.clone(), *revision);
                self.present(after, revision).await
            }
            Phase::Live => self.live().await,
        }
    }

    /// Looks now and then after whoever watches: who is revoked is told so; where they may now see
    /// more or less, the watch ends, and the next one is judged anew.
    fn may_go_on(&mut self) -> Result<bool, ApiError> {
        let now = Instant::now();
        match &mut self.standing {
            Some((standing, next)) if *next <= now => {
                *next = now + limits::STANDING_EVERY;
                standing.is_kept()
            }
            _ => Ok(true),
        }
    }

    /// Sends a page of what is there. All pages show the moment of the first.
    async fn present(
        &mut self,
        after: Option<(String, String)>,
        revision: Option<u64>,
    ) -> Result<(), ApiError> {
        let request = PageRequest {
            resource: self.resource.index,
            namespace: self.namespace.clone(),
            after,
            revision,
            limit: None,
            bytes: Some(limits::WATCH_BYTES),
            selection: Arc::clone(&self.selection),
        };
        let page = self.api.store.page(request).await.map_err(|error| match error {
            PageError::Expired => overrun(revision.unwrap_or_default()),
            PageError::Full => ApiError::too_many(),
            PageError::Failed(error) => error,
        })?;
        for body in page.bodies.bodies() {
            self.send(EventKind::Added, &body)?;
        }
        self.seen = page.revision;
        self.phase = match page.next {
            Some(next) => Phase::Present { after: Some(next), revision: Some(page.revision) },
            None => Phase::Live,
        };
        if matches!(self.phase, Phase::Live) && self.bookmarks.initial {
            self.bookmark(true);
        }
        Ok(())
    }

    /// Sends what changed, or waits for a change, a bookmark's time or the end.
    async fn live(&mut self) -> Result<(), ApiError> {
        // What was published before the ring is read is in the ring when it is read.
        let published = *self.api.store.published().borrow();
        self.newest.mark_unchanged();
        let events = self.ring.after(self.seen, limits::WATCH_BYTES);
        let events = events.map_err(|Overrun| overrun(self.seen))?;
        if events.is_empty() {
            self.seen = self.seen.max(published);
            return self.wait().await;
        }
        for event in &events {
            self.take(event)?;
            self.seen = event.revision;
        }
        self.look_at_the_clock();
        Ok(())
    }

    /// Gives a bookmark when it is due, and ends when it is time, also while there is always news.
    fn look_at_the_clock(&mut self) {
        let now = Instant::now();
        if self.bookmarks.allowed && now >= self.bookmarks.next.min(self.ends) {
            self.bookmark(false);
        }
        if now >= self.ends || *self.closing.borrow() {
            self.phase = Phase::Ended;
        }
    }

    /// Waits for a change, for a bookmark's time or for the end.
    async fn wait(&mut self) -> Result<(), ApiError> {
        let bookmark = if self.bookmarks.allowed { self.bookmarks.next } else { self.ends };
        let standing = self.standing.as_ref().map_or(self.ends, |(_, next)| *next);
        let woken = tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => Err(()),
            changed = self.newest.changed() => changed.map_err(|_| ()),
            () = tokio::time::sleep_until(bookmark.min(standing).min(self.ends)) => Ok(()),
        };
        self.look_at_the_clock();
        if woken.is_err() {
            self.phase = Phase::Ended;
        }
        Ok(())
    }

    /// Sends a change as this watch sees it: what comes into its selection is added, what leaves it
    /// is deleted.
    fn take(&mut self, event: &Event) -> Result<(), ApiError> {
        if self.namespace.as_deref().is_some_and(|namespace| *namespace != *event.namespace) {
            return Ok(());
        }
        if self.selection.is_everything() {
            if self.form.accept.shape == Shape::Object {
                self.ready.push_back(event.line.clone());
                return Ok(());
            }
            return self.send(event.kind, &event.body);
        }
        let place = (&*event.namespace, &*event.name);
        let is = event.kind != EventKind::Deleted && self.selection.selects(place, &event.body)?;
        let was = match &event.before {
            Some(before) => self.selection.selects(place, before)?,
            None => false,
        };
        match (was, is) {
            (false, false) => Ok(()),
            (false, true) => self.send(EventKind::Added, &event.body),
            (true, true) => self.send(EventKind::Modified, &event.body),
            (true, false) => self.send(EventKind::Deleted, &last_selected(event)?),
        }
    }

    fn send(&mut self, kind: EventKind, body: &Bytes) -> Result<(), ApiError> {
        // Ages are counted from the event, not from the watch's beginning.
        self.form.now_ms = self.api.clock.now_ms();
        let line = self.form.event(kind, &self.resource, body, self.rows_only)?;
        self.rows_only = true;
        self.ready.push_back(line);
        Ok(())
    }

    /// Tells the client up to where it has seen everything.
    fn bookmark(&mut self, initial: bool) {
        let mut metadata = json!({ "resourceVersion": self.seen.to_string() });
        if initial {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let object = json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": metadata,
        });
        let object = self.form.shape(&self.resource, object, self.rows_only);
        self.rows_only = true;
        self.ready.push_back(render::line("BOOKMARK", object.to_string().as_bytes()));
        self.bookmarks.next = Instant::now() + limits::BOOKMARK_EVERY;
    }
}

/// The object as it was when it was last selected, under the revision of the change.
fn last_selected(event: &Event) -> Result<Bytes, ApiError> {
    let before = event.before.as_ref().unwrap_or(&event.body);
    let mut object = object::read(before)?;
    object::set_revision(&mut object, event.revision);
    Ok(object.to_string().into())
}

/// The watch's revision is older than what is kept.
fn overrun(revision: u64) -> ApiError {
    ApiError::expired(format!("too old resource version: {revision}"), None)
}

/// Whether the present state was asked for, or refused, by `sendInitialEvents`.
fn initial_events(query: &Query) -> Result<Option<bool>, ApiError> {
    let refuse = |why| {
        let cause = Cause::forbidden("resourceVersionMatch", why);
        Err(ApiError::invalid_options("ListOptions", "meta.k8s.io", vec![cause]))
    };
    let asked = !query.text("sendInitialEvents").is_empty();
    match (asked, query.text("resourceVersionMatch")) {
        (false, "") => Ok(None),
        (false, _) => refuse(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (true, "NotOlderThan") => Ok(Some(query.flag("sendInitialEvents"))),
        (true, _) => {
            refuse("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
        }
    }
}
