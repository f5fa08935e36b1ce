//! What a cursor asks for: exactly that, however odd its name.

use super::world::*;
use super::{Harness, Limits};
use crate::broker::{CursorId, CursorSpec};
use crate::event::{Event, Source};
use crate::testing::event;

/// A cursor gets the events of its source, type and version, and no others.
pub async fn only_what_was_asked_for_comes(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let orders = open(harness, &broker, "orders", "order.created").await;
    let wanted = event("order.created", "wanted");
    let other = |payload: &'static str| Event { payload: payload.into(), ..wanted.clone() };
    append(
        &broker,
        vec![
            Event { source: Source::from_id("store".into()), ..other("source") },
            Event { source: Source::from_id("SHOP".into()), ..other("case of the source") },
            Event { event_type: "order.deleted".into(), ..other("type") },
            Event { event_type: "order".into(), ..other("a part of the type") },
            Event { event_type: "Order.created".into(), ..other("case of the type") },
            Event { event_type_version: "v2".into(), ..other("version") },
            Event { event_type_version: "".into(), ..other("no version") },
            wanted,
        ],
    )
    .await;
    takes(harness, &orders, &["wanted"]).await;
}

/// Names may hold any character and be empty or long, and no two of them are taken for one.
pub async fn no_two_names_are_taken_for_one(harness: &dyn Harness) {
    let broker = harness.start(Limits::default()).await;
    let events = odd_events();
    let mut cursors = Vec::new();
    for (n, event) in events.iter().enumerate() {
        let id = CursorId(format!("odd-{n}").into());
        let asked = CursorSpec { id, interest: event.interest(), ..spec(harness, "", "") };
        cursors.push(open_as(&broker, asked).await);
    }
    append(&broker, events.clone()).await;
    for (n, (cursor, event)) in cursors.iter().zip(&events).enumerate() {
        let leases = lease(harness, cursor, 10).await;
        assert_eq!(payloads(&leases), [n.to_string()], "{:?}", event.interest());
        assert_eq!(**leases[0].event(), *event);
        settle(cursor, leases, crate::delivery::Verdict::Ack).await;
    }
    harness.sleep(SILENCE).await;
    for (cursor, event) in cursors.iter().zip(&events) {
        assert_eq!(cursor.stats().lag_events, 0, "more came for {:?}", event.interest());
    }
}

/// Events whose names come close to each other, each with its number as payload.
fn odd_events() -> Vec<Event> {
    let long = "x".repeat(253);
    let long_too = format!("{}y", "x".repeat(252));
    let names = [
        ("shop", "a.b", "v1"),
        ("shop", "a", "b.v1"),
        ("shop.a", "b", "v1"),
        ("shop", "a_b", "v1"),
        ("shop", "a-b", "v1"),
        ("shop", "a=b", "v1"),
        ("shop", "a=2Eb", "v1"),
        ("shop", "a=2eb", "v1"),
        ("shop", "a%2Eb", "v1"),
        ("shop", "a b", "v1"),
        ("shop", " a b", "v1"),
        ("shop", "a*", "v1"),
        ("shop", "*", "v1"),
        ("shop", ">", "v1"),
        ("shop", "a.>", "v1"),
        ("shop", "a.*", "v1"),
        ("shop", "a..b", "v1"),
        ("shop", ".a.b", "v1"),
        ("shop", "a.b.", "v1"),
        ("shop", "$JS.API", "v1"),
        ("shop", "a\tb\r\nc", "v1"),
        ("shop", "größe", "v1"),
        ("shop", "gro\u{308}ße", "v1"),
        ("shop", "注文", "v1"),
        ("shop", "a.b", ""),
        ("shop", "a.b", "="),
        ("shop", "a.b", "*"),
        ("shop", "a.b", "V1"),
        ("", "a.b", "v1"),
        ("=", "a.b", "v1"),
        ("*", "a.b", "v1"),
        (">", "a.b", "v1"),
        ("/stage/com.shop/commerce", "a.b", "v1"),
        ("https://shop.example/a?b=c#d", "a.b", "v1"),
        (&long, "a.b", "v1"),
        (&long_too, "a.b", "v1"),
        ("shop", &long, "v1"),
        ("shop", &long_too, "v1"),
        (&long, &long, "v1"),
        (&long, &long_too, ""),
    ];
    let odd = |(n, (source, event_type, version)): (usize, (&str, &str, &str))| Event {
        source: Source::from_id(source.into()),
        event_type_version: version.into(),
        ..event(event_type, n.to_string())
    };
    names.into_iter().enumerate().map(odd).collect()
}
