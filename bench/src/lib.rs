//! The steps of an event's way through the bus, each alone: what `cargo bench` times, and what
//! `bench/instructions` counts the instructions of.
//!
//! A [`Step`] makes its work ready once and then does it again and again, the same each time. All
//! events are of 1 KiB.

#![expect(clippy::unwrap_used, reason = "what fails here is a defect of the step")]

mod events;
mod log;
mod place;
mod still;
mod wire;

/// One step.
pub struct Step {
    /// What it is called.
    pub name: &'static str,
    /// How many events each turn is about.
    pub events: u32,
    /// Makes the work ready.
    pub ready: fn() -> Work,
}

/// Does a step once.
pub type Work = Box<dyn FnMut()>;

/// Every step, in the order an event takes them.
pub const STEPS: [Step; 14] = [
    Step { name: "decode contract", events: 1, ready: wire::contract },
    Step { name: "decode batch of 100", events: 100, ready: wire::batch },
    Step { name: "decode cloudevent, binary", events: 1, ready: wire::binary },
    Step { name: "decode cloudevent, structured", events: 1, ready: wire::structured },
    Step { name: "match, 10 Subscriptions", events: 1, ready: place::matching_10 },
    Step { name: "match, 10,000 Subscriptions", events: 1, ready: place::matching_10_000 },
    Step { name: "encode stored", events: 1, ready: wire::encode_stored },
    Step { name: "append", events: 1, ready: log::append },
    Step { name: "append batch of 100", events: 100, ready: log::append_batch },
    Step { name: "decode stored", events: 1, ready: wire::decode_stored },
    Step { name: "lease and settle 100, the log's cursor", events: 100, ready: log::deliver },
    Step { name: "lease and settle 100, the machine alone", events: 100, ready: place::cursor },
    Step { name: "write delivery, kyma", events: 1, ready: wire::delivery_kyma },
    Step { name: "write delivery, cloudevent", events: 1, ready: wire::delivery_structured },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_can_be_done_again_and_again() {
        for step in STEPS {
            let mut work = (step.ready)();
            (0..3).for_each(|_| work());
        }
    }
}
