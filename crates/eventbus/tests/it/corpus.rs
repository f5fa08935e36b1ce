//! The corpus of the fuzz targets, once through each: what was found once is not found again.

use std::path::Path;

#[path = "../../../../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "public for the fuzz targets, whose library it is")]
mod checks;

fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs: Vec<_> =
        std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(inputs.len() >= 10, "the corpus of {target} is missing");
    for input in inputs {
        println!("{}", input.display());
        check(&std::fs::read(input).unwrap());
    }
}

#[test]
fn publish_requests() {
    replay("contract", checks::contract);
}

#[test]
fn batches() {
    replay("batch", checks::batch);
}

#[test]
fn cloud_events() {
    replay("cloudevents", checks::cloudevents);
}

#[test]
fn requests_to_the_front() {
    replay("front", checks::front);
}

#[test]
fn stored_events() {
    replay("stored", checks::stored);
}

#[test]
fn damaged_logs() {
    replay("log", checks::log);
}

#[test]
fn requests_to_the_api() {
    replay("api", checks::api);
}
