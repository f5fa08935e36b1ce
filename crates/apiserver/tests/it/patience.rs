//! Nobody waits for the work that somebody else's write is.

use http::Request;
use serde_json::{Value, json};

use crate::fixture::{Fixture, WIDGETS};

/// Two patches of a namespace, of which the second is about as much work as is allowed: each of its
/// texts is looked for among those of the first.
fn patches() -> [Request<String>; 2] {
    [0, 1].map(|half| {
        let texts = (0..1000).map(|at| format!("f.example/{half}-{at}")).map(Value::from);
        let patch = json!({ "metadata": { "finalizers": texts.collect::<Value>() } });
        Request::patch("/api/v1/namespaces/stage")
            .header("content-type", "application/strategic-merge-patch+json")
            .body(patch.to_string())
            .unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_write_while_a_long_patch_is_worked_out() {
    let fixture = Fixture::new().await;
    fixture.create("stage", "other", 1).await;
    let [short, long] = patches();
    assert_eq!(fixture.raw(short).await.status(), 200);

    let other = format!("{WIDGETS}/namespaces/stage/widgets/other");
    let mut written = 0;
    let others = async {
        loop {
            let size = json!({ "spec": { "size": written + 2 } });
            assert_eq!(fixture.send("PATCH", &other, size).await.0, 200);
            written += 1;
        }
    };
    // The long one is asked for first.
    let answer = tokio::select! {
        biased;
        answer = fixture.raw(long) => answer,
        () = others => unreachable!(),
    };
    assert_eq!(answer.status(), 200);
    assert!(written > 0, "nobody else wrote while it was worked out");
}
