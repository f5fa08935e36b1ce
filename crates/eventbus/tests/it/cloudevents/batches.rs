//! Batches, in the contract's form and in CloudEvents', on every path that takes them.

use serde_json::{Value, json};

use super::{BATCHED, Road, STRUCTURED, Said, document, over_each_broker, told};
use crate::served::{Answer, event};

/// An id of the contract's.
fn id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// The contract's event of that number.
fn order(number: usize) -> Value {
    let mut order = event("order.created", &json!(number));
    order["event-id"] = id(number).into();
    order
}

/// The same as a CloudEvent.
fn cloud_order(number: usize) -> Value {
    let members = json!({
        "source": "shop", "type": "order.created", "eventtypeversion": "v1", "data": number,
    });
    document(&id(number), &members)
}

async fn road(flags: &[&str]) -> Road {
    let mut road = Road::empty(flags).await;
    road.subscribe(&json!({
        "source_id": "shop", "event_type": "order.created", "event_type_version": "v1",
    }))
    .await;
    road
}

/// The results of a batch: of each event its id and its status.
fn results(answer: &Answer) -> Vec<(String, String)> {
    assert_eq!(answer.headers["content-type"], "application/json", "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    let results = body["results"].as_array().unwrap().iter();
    results
        .map(|result| {
            assert!(!result["reason"].as_str().unwrap().is_empty(), "{result}");
            assert_eq!(result.get("error").is_some(), result["status"] == "rejected", "{result}");
            let text = |name: &str| result[name].as_str().unwrap().to_owned();
            (text("event-id"), text("status"))
        })
        .collect()
}

/// What an event of a batch is refused with.
fn error(answer: &Answer, place: usize) -> Value {
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    body["results"][place]["error"].clone()
}

fn expect(statuses: &[(usize, &str)]) -> Vec<(String, String)> {
    statuses.iter().map(|(number, status)| (id(*number), (*status).to_owned())).collect()
}

impl Road {
    /// The next event is the order of this number.
    async fn brings_order(&mut self, number: usize) {
        let arrived = self.next().await;
        assert_eq!(Said::in_binary(&arrived.binary).attributes["id"], id(number));
        for request in [&arrived.kyma, &arrived.binary] {
            assert_eq!(request.body(), &number.to_string());
        }
        assert_eq!(Said::in_structured(&arrived.structured).payload, number.to_string());
    }
}

over_each_broker!(each_event_of_a_batch_has_its_result_in_order, all_or_none_where_it_is_asked_for);

async fn each_event_of_a_batch_has_its_result_in_order(flags: &[&str]) {
    let mut road = road(flags).await;
    let mut first = 0;
    for (path, media_type, make) in [
        ("/v1/events/batch", "application/json", order as fn(usize) -> Value),
        ("/v1/events/batch", BATCHED, cloud_order),
        ("/v1/events", BATCHED, cloud_order),
        ("/publish", BATCHED, cloud_order),
        ("/publish", "Application/CloudEvents-Batch+JSON; charset=utf-8", cloud_order),
    ] {
        let [one, two, mut wrong, mut nobody] = [0, 1, 2, 3].map(|step| make(first + step));
        for name in ["event-type", "type"] {
            if wrong.get(name).is_some() {
                wrong[name] = "".into();
                nobody[name] = "order.lost".into();
            }
        }
        let batch = json!([one, wrong, nobody, one, two]).to_string();
        let answer = road.post(path, &[("content-type", media_type)], batch).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let expected = [
            (first, "published"),
            (first + 2, "rejected"),
            (first + 3, "ignored"),
            (first, "duplicate"),
            (first + 1, "published"),
        ];
        assert_eq!(results(&answer), expect(&expected), "{path} {media_type}");
        let level = if flags.is_empty() { "synced" } else { "written" };
        assert_eq!(told(&answer, "durability"), level);
        let error = error(&answer, 1);
        assert_eq!(
            (&error["status"], &error["type"]),
            (&json!(400), &json!("validation_violation"))
        );
        assert_eq!(error["details"][0]["type"], "missing_field", "{error}");
        road.brings_order(first).await;
        road.brings_order(first + 1).await;
        first += 4;
    }
}

#[tokio::test]
async fn events_of_the_contract_may_come_in_lines() {
    let mut road = road(&[]).await;
    let lines = format!("{}\n\n  {}\r\nnonsense\n{}", order(0), order(1), order(2));
    let answer = road.post("/v1/events/batch", &[], lines).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut expected =
        expect(&[(0, "published"), (1, "published"), (0, "rejected"), (2, "published")]);
    expected[2].0 = String::new();
    assert_eq!(results(&answer), expected);
    assert_eq!(error(&answer, 2)["type"], "bad_payload_syntax");
    for number in 0..3 {
        road.brings_order(number).await;
    }
}

async fn all_or_none_where_it_is_asked_for(flags: &[&str]) {
    let mut road = road(flags).await;
    let post = async |road: &Road, path: &str, batch: &Value| {
        let media_type = if path.starts_with("/publish") { BATCHED } else { "application/json" };
        road.post(path, &[("content-type", media_type)], batch.to_string()).await
    };
    let mut wrong = order(1);
    wrong["event-time"] = "now".into();
    let batch = json!([order(0), wrong, order(2)]);
    let refused = post(&road, "/v1/events/batch?atomic=true", &batch).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let expected = [(0, "not_stored"), (1, "rejected"), (2, "not_stored")];
    assert_eq!(results(&refused), expect(&expected));
    assert_eq!(error(&refused, 1)["details"][0]["field"], "event-time");
    assert!(!refused.headers.contains_key("eventbus-durability"), "{refused:?}");
    let mut wrong = cloud_order(1);
    wrong["time"] = "now".into();
    let batch = json!([cloud_order(0), wrong]);
    let refused = post(&road, "/publish?atomic=true", &batch).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_eq!(results(&refused), expect(&[(0, "not_stored"), (1, "rejected")]));
    let refused = post(&road, "/v1/events/batch?atomic=maybe", &json!([order(0)])).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(refused.body.contains("\"field\":\"atomic\""), "{refused:?}");
    // None was stored, so none is a duplicate now; what nobody asks for holds nothing up.
    let mut nobody = order(3);
    nobody["event-type"] = "order.lost".into();
    let batch = json!([order(0), nobody, order(2), order(0)]);
    let answer = post(&road, "/v1/events/batch?atomic=true", &batch).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected = [(0, "published"), (3, "ignored"), (2, "published"), (0, "duplicate")];
    assert_eq!(results(&answer), expect(&expected));
    road.brings_order(0).await;
    road.brings_order(2).await;
}

#[tokio::test]
async fn nothing_is_a_batch_too_and_what_is_none_is_refused() {
    let road = road(&[]).await;
    for (path, media_type, body) in [
        ("/v1/events/batch", "application/json", "[]"),
        ("/v1/events/batch", "application/json", " [ ] "),
        ("/v1/events/batch", "application/x-ndjson", ""),
        ("/publish", BATCHED, "[]"),
    ] {
        let answer = road.post(path, &[("content-type", media_type)], body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(results(&answer), [], "{path} {body:?}");
    }
    let single = cloud_order(0).to_string();
    for (path, media_type, body) in [
        ("/publish", BATCHED, &*single),
        ("/publish", BATCHED, ""),
        ("/publish", BATCHED, "[1"),
        ("/v1/events", BATCHED, "null"),
        ("/v1/events/batch", "application/json", "[{}"),
        ("/v1/events/batch", "application/json", "[{}] x"),
    ] {
        let answer = road.post(path, &[("content-type", media_type)], body.to_owned()).await;
        assert_eq!(answer.status, 400, "{path} {body:?}: {answer:?}");
        let told: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(told["type"], "bad_payload_syntax", "{told}");
    }
    // One CloudEvent is welcome where batches are.
    let answer = road.post("/v1/events/batch", &[("content-type", STRUCTURED)], single).await;
    assert_eq!((answer.status, told(&answer, "status")), (204, "published"), "{answer:?}");
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let limits = ["--max-event-bytes", "1000", "--max-batch-bytes", "4000"];
    let mut road = road(&[&limits[..], &["--max-batch-events", "3"]].concat()).await;
    let forms = [
        ("/v1/events/batch", "application/json", order as fn(usize) -> Value),
        ("/publish", BATCHED, cloud_order),
    ];
    for (path, media_type, make) in forms {
        let post = async |batch: &Value| {
            road.post(path, &[("content-type", media_type)], batch.to_string()).await
        };
        let many = post(&json!([make(0), make(1), make(2), make(3)])).await;
        assert_eq!(many.status, 413, "{many:?}");
        let told: Value = serde_json::from_str(&many.body).unwrap();
        assert_eq!(told["type"], "request_body_too_large");
        assert_eq!(told["moreInfo"], "A batch has at most 3 events");
        let large = |number, bytes| {
            let mut large = make(number);
            large["data"] = "x".repeat(bytes).into();
            large
        };
        let whole = post(&json!([large(0, 900), large(1, 3900)])).await;
        assert_eq!(whole.status, 413, "{whole:?}");
        assert!(whole.body.contains("request_body_too_large"), "{whole:?}");
    }
    // One that is too large is refused alone.
    for (first, (path, media_type, make)) in [0, 10].into_iter().zip(forms) {
        let mut large = make(first + 1);
        large["data"] = "x".repeat(1001).into();
        let batch = json!([make(first), large, make(first + 2)]).to_string();
        let answer = road.post(path, &[("content-type", media_type)], batch).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let statuses: Vec<_> = results(&answer).into_iter().map(|(_, status)| status).collect();
        assert_eq!(statuses, ["published", "rejected", "published"]);
        assert_eq!(error(&answer, 1)["status"], 413);
        road.brings_order(first).await;
        road.brings_order(first + 2).await;
    }
}
