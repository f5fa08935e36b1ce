//! Pages in memory: how many are written, or wait to be sent, at the same moment.
//!
//! A client may ask for many pages and take none of them, over HTTP/2 for as long as it likes. So
//! a page has one of few places, from before it is written until the last of it is sent; whoever
//! finds none is told to come again. What is not taken in time gives its place to the next.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

/// Pages that may lie in memory at once: each takes some 450 bytes a Subscription that is told of,
/// and a scraper has its page within milliseconds.
const PLACES: usize = 8;

/// How long a page waits for its client where another wants the place: several times what a
/// scraper waits for it.
const LASTS: Duration = Duration::from_secs(60);

/// What is handed over at a time. What is handed over is the connection's: over HTTP/2 it waits
/// there until its client takes it, and no clock of ours can end that.
const PIECE_BYTES: usize = 16 * 1024;

/// The places.
#[derive(Default)]
pub(super) struct Pages(Mutex<Vec<Weak<Place>>>);

/// The place of one page, free again when this is dropped, or given up.
#[derive(Debug)]
pub(super) struct Place(Mutex<State>);

#[derive(Debug)]
enum State {
    Written,
    Sent { left: Bytes, until: Instant },
    GivenUp,
}

/// A page on its way to its client.
#[derive(Debug)]
pub struct Page(Arc<Place>);

/// A part of a page on its way; the place is taken for as long as it is.
struct Piece(Box<[u8]>, #[expect(dead_code, reason = "held, not read")] Arc<Place>);

impl Pages {
    /// A place for a page to be written. `None`: all are taken.
    pub(super) fn place(&self) -> Option<Arc<Place>> {
        let now = Instant::now();
        let mut places = lock(&self.0);
        places.retain(|place| place.upgrade().is_some_and(|place| place.is_taken(now)));
        (places.len() < PLACES).then(|| {
            let place = Arc::new(Place(Mutex::new(State::Written)));
            places.push(Arc::downgrade(&place));
            place
        })
    }
}

impl Place {
    fn is_taken(&self, now: Instant) -> bool {
        let mut state = lock(&self.0);
        if matches!(*state, State::Sent { until, .. } if until < now) {
            *state = State::GivenUp;
        }
        !matches!(*state, State::GivenUp)
    }
}

impl Page {
    /// A page that is written.
    pub(super) fn new(place: Arc<Place>, page: String) -> Self {
        *lock(&place.0) = State::Sent { left: page.into(), until: Instant::now() + LASTS };
        Self(place)
    }
}

impl Body for Page {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let mut state = lock(&self.0.0);
        let State::Sent { left, .. } = &mut *state else {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        if left.is_empty() {
            return Poll::Ready(None);
        }
        // A copy: a part of the page itself would keep the whole of it.
        let piece = left.split_to(left.len().min(PIECE_BYTES));
        let piece = Bytes::from_owner(Piece(piece.as_ref().into(), Arc::clone(&self.0)));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&*lock(&self.0.0), State::Sent { left, .. } if left.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &*lock(&self.0.0) {
            State::Sent { left, .. } => SizeHint::with_exact(left.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const PAGE_BYTES: usize = 2 * PIECE_BYTES + 1;

    fn page(pages: &Pages) -> Option<Page> {
        Some(Page::new(pages.place()?, "x".repeat(PAGE_BYTES)))
    }

    #[tokio::test]
    async fn a_page_has_its_place_until_the_last_of_it_is_sent() {
        let pages = Pages::default();
        let mut waiting: Vec<_> = std::iter::from_fn(|| page(&pages)).collect();
        assert_eq!(waiting.len(), PLACES);
        let mut sent = waiting.pop().unwrap();
        assert_eq!(sent.size_hint().exact(), Some(PAGE_BYTES as u64));
        let mut pieces = Vec::new();
        while let Some(piece) = sent.frame().await {
            pieces.push(piece.unwrap().into_data().unwrap());
        }
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), PAGE_BYTES);
        drop(sent);
        assert!(pages.place().is_none(), "the connection has it still");
        let last = pieces.pop();
        drop(pieces);
        assert!(pages.place().is_none());
        drop(last);
        let written = pages.place();
        assert!(written.is_some() && pages.place().is_none());
        // Who hung up before it was sent leaves at once.
        waiting.pop();
        assert!(pages.place().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_in_time_is_given_up_for_others() {
        let pages = Pages::default();
        let written = pages.place();
        let mut waiting: Vec<_> = std::iter::from_fn(|| page(&pages)).collect();
        assert_eq!(waiting.len(), PLACES - 1);
        let begun = waiting[0].frame().await.unwrap().unwrap();
        tokio::time::advance(LASTS * 2).await;
        // Nobody else asked meanwhile.
        assert!(waiting[1].frame().await.unwrap().is_ok());
        let others: Vec<_> = std::iter::from_fn(|| pages.place()).collect();
        assert_eq!(others.len(), PLACES - 1, "one is written still");
        for page in &mut waiting {
            assert_eq!(page.frame().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
        }
        drop((begun, written));
    }
}
