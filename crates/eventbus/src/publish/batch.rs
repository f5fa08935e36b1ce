//! Gathering lines into requests.
//!
//! What is there goes together; what comes slowly does not wait for more.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::time::Instant;

/// The events of one request, together: twice that would not be faster, and `--concurrency` of them
/// are held. One event that is larger goes alone, for the bus to judge.
const BATCH_BYTES: usize = 1024 * 1024;

/// How long a request waits for more lines: time for who writes fast to write more, and nothing
/// that who writes seldom would notice.
const LINGER: Duration = Duration::from_millis(5);

/// A line that has been completed.
#[derive(Debug)]
pub(super) struct Draft {
    /// Its number in the input, from one.
    pub(super) number: u64,
    /// The event as JSON, or why it cannot be sent.
    pub(super) event: Result<String, String>,
}

/// What goes into one request.
#[derive(Debug)]
pub(super) struct Batch {
    /// Each line's number, and why it is not among the events, if it is not.
    pub(super) lines: Vec<(u64, Result<(), String>)>,
    pub(super) events: Events,
}

/// Events that go together.
#[derive(Debug)]
pub(super) struct Events {
    /// They, as a JSON array.
    pub(super) array: Bytes,
    /// Where in it each of them stands.
    places: Vec<Range<usize>>,
}

/// Gathers up to `most` of the drafts at a time, in their order.
pub(super) fn gather(drafts: impl Stream<Item = Draft>, most: u16) -> impl Stream<Item = Batch> {
    let start = (Box::pin(drafts.fuse()), None);
    stream::unfold(start, move |(mut drafts, left_over)| async move {
        let first = match left_over {
            Some(draft) => draft,
            None => drafts.next().await?,
        };
        let mut batch = Growing::default();
        batch.add(first);
        let until = Instant::now() + LINGER;
        while batch.lines.len() < most.into() {
            let next = tokio::time::timeout_at(until, drafts.next()).await;
            let Ok(Some(draft)) = next else { break };
            if !batch.has_room_for(&draft) {
                return Some((batch.whole(), (drafts, Some(draft))));
            }
            batch.add(draft);
        }
        Some((batch.whole(), (drafts, None)))
    })
}

#[derive(Default)]
struct Growing {
    lines: Vec<(u64, Result<(), String>)>,
    /// The array without its end.
    array: Vec<u8>,
    places: Vec<Range<usize>>,
}

// === impl Growing ===

impl Growing {
    fn has_room_for(&self, Draft { event, .. }: &Draft) -> bool {
        self.places.is_empty()
            || event.as_ref().map_or(true, |event| self.array.len() + event.len() < BATCH_BYTES)
    }

    fn add(&mut self, Draft { number, event }: Draft) {
        let added = event.map(|event| self.add_event(event.as_bytes()));
        self.lines.push((number, added));
    }

    fn add_event(&mut self, event: &[u8]) {
        self.array.push(if self.places.is_empty() { b'[' } else { b',' });
        self.places.push(self.array.len()..self.array.len() + event.len());
        self.array.extend_from_slice(event);
    }

    fn whole(self) -> Batch {
        let Self { lines, mut array, places } = self;
        array.push(b']');
        Batch { lines, events: Events { array: array.into(), places } }
    }
}

// === impl Batch ===

impl Batch {
    /// A single event.
    pub(super) fn of(draft: Draft) -> Self {
        let mut batch = Growing::default();
        batch.add(draft);
        batch.whole()
    }
}

// === impl Events ===

impl Events {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// The only event, where it is the only one.
    pub(super) fn alone(&self) -> Option<Bytes> {
        match &self.places[..] {
            [place] => Some(self.array.slice(place.clone())),
            _ => None,
        }
    }

    /// Those at these places among them, from zero.
    pub(super) fn some(&self, which: &[usize]) -> Self {
        let mut some = Growing::default();
        let places = which.iter().filter_map(|at| self.places.get(*at));
        places.for_each(|place| some.add_event(&self.array[place.clone()]));
        some.whole().events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(number: u64, event: &str) -> Draft {
        Draft { number, event: Ok(event.to_owned()) }
    }

    async fn gathered(drafts: Vec<Draft>, most: u16) -> Vec<(usize, String)> {
        let text = |batch: Batch| {
            let Batch { lines, events } = batch;
            assert_eq!(events.alone().is_some(), events.count() == 1);
            (lines.len(), String::from_utf8(events.array.to_vec()).unwrap())
        };
        gather(stream::iter(drafts), most).map(text).collect().await
    }

    #[tokio::test]
    async fn what_is_there_goes_together_up_to_a_number() {
        let drafts = (1..=5).map(|number| draft(number, &number.to_string())).collect();
        let wanted = [(2, "[1,2]".to_owned()), (2, "[3,4]".to_owned()), (1, "[5]".to_owned())];
        assert_eq!(gathered(drafts, 2).await, wanted);
    }

    #[tokio::test]
    async fn a_batch_has_so_many_bytes_unless_one_event_has_more() {
        let large = |number, bytes| draft(number, &"x".repeat(bytes));
        let half = BATCH_BYTES / 2;
        let drafts = vec![large(1, half), large(2, half), large(3, 5), large(4, 2 * BATCH_BYTES)];
        let bytes: Vec<_> =
            gathered(drafts, 9).await.into_iter().map(|(_, all)| all.len()).collect();
        assert_eq!(bytes, [half + 2, half + 5 + 3, 2 * BATCH_BYTES + 2]);
    }

    #[tokio::test]
    async fn a_line_that_cannot_be_sent_keeps_its_place() {
        let broken = Draft { number: 2, event: Err("broken".to_owned()) };
        let drafts = vec![draft(1, "1"), broken, draft(4, "4")];
        let batches: Vec<Batch> = gather(stream::iter(drafts), 9).collect().await;
        let lines = [(1, Ok(())), (2, Err("broken".to_owned())), (4, Ok(()))];
        assert_eq!(batches[0].lines, lines);
        assert_eq!(batches[0].events.array, "[1,4]");
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_slowly_does_not_wait() {
        let slowly = stream::iter(1..=3).then(async |number: u64| {
            tokio::time::sleep(Duration::from_secs(1)).await;
            draft(number, "{}")
        });
        let batches: Vec<usize> =
            gather(slowly, 9).map(|batch| batch.events.count()).collect().await;
        assert_eq!(batches, [1, 1, 1]);
    }

    #[tokio::test]
    async fn some_of_the_events_are_events_too() {
        let drafts = ["{}", "[2]", "3"].into_iter().zip(1..).map(|(event, n)| draft(n, event));
        let batch = gather(stream::iter(drafts), 9).collect::<Vec<_>>().await.remove(0);
        let last = batch.events.some(&[0, 2]);
        assert_eq!((last.count(), last.array.as_ref()), (2, &b"[{},3]"[..]));
        assert_eq!(batch.events.some(&[1]).alone().unwrap(), "[2]");
    }
}
