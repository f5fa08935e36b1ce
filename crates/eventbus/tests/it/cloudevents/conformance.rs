//! The conformance data of CloudEvents, in the folder that `EVENTBUS_TCK_DIR` names: every scenario
//! and every sample goes through a bus of its own, because all of them have one id.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Road, STRUCTURED, Said, stored};

/// The text of a file of the conformance data; says aloud when there is none.
fn file(name: &str) -> Option<String> {
    let Some(directory) = std::env::var_os("EVENTBUS_TCK_DIR") else {
        println!("SKIPPED: conformance data: EVENTBUS_TCK_DIR names no folder of it");
        return None;
    };
    let path = PathBuf::from(directory).join("cloudevents").join(name);
    Some(std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")))
}

/// A bus with Subscriptions to what `said` is of.
async fn road(said: &Said) -> Road {
    let mut road = Road::empty(&[]).await;
    let wanted = json!({
        "source_id": said.attributes["source"], "event_type": said.attributes["type"],
        "event_type_version": "",
    });
    road.subscribe(&wanted).await;
    road
}

#[tokio::test]
async fn every_scenario_of_the_http_binding() {
    let Some(text) = file("http-protocol-binding.feature") else { return };
    let scenarios = gherkin::scenarios(&text);
    assert!(scenarios.len() >= 4, "{scenarios:?}");
    for (name, steps) in scenarios {
        println!("{name}");
        play(&steps).await;
    }
}

/// Plays the steps of one scenario.
async fn play(steps: &[gherkin::Step]) {
    let (mut request, mut said) = (None, Said::new("", &[], ""));
    let mut data = None;
    for step in steps {
        match &*step.text {
            "HTTP Protocol Binding is supported" | "parsed as HTTP request" => {}
            "an HTTP request" => request = Some(parse(&step.document)),
            "the attributes are:" => {
                let [head, rows @ ..] = &step.table[..] else { panic!("{step:?}") };
                assert_eq!(*head, ["key", "value"]);
                said.attributes = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
            }
            "the data is equal to the following JSON:" => {
                data = Some(serde_json::from_str::<Value>(&step.document).unwrap());
            }
            other => panic!("a step that is not known: {other}"),
        }
    }
    let (headers, body) = request.unwrap();
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    let mut road = road(&said).await;
    stored(road.post("/publish", &headers, body).await);
    let arrived = road.next().await;
    // JSON is compared as JSON, and then each form with the others byte for byte.
    said.payload = arrived.binary.body().clone();
    assert_eq!(serde_json::from_slice::<Value>(&said.payload).unwrap(), data.unwrap());
    arrived.says(&said);
}

/// The headers and the body of a request as it is written.
fn parse(request: &str) -> (HeaderMap, String) {
    let (head, body) = request.split_once("\n\n").unwrap();
    let mut lines = head.lines();
    let line: Vec<_> = lines.next().unwrap().split(' ').collect();
    assert!(matches!(line[..], ["POST", _, "HTTP/1.1"]), "{line:?}");
    let mut headers: HeaderMap = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.parse().unwrap(), value.parse::<http::HeaderValue>().unwrap()))
        .collect::<Vec<(http::HeaderName, _)>>()
        .into_iter()
        .collect();
    // Those of the way there are this test's own.
    headers.remove("host");
    headers.remove("content-length");
    (headers, body.to_owned())
}

/// An event of `v1.yaml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Sample {
    mode: String,
    context_attributes: ContextAttributes,
    transport_extensions: BTreeMap<String, String>,
    data: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextAttributes {
    specversion: String,
    #[serde(rename = "type")]
    event_type: String,
    time: String,
    id: String,
    source: String,
    #[serde(rename = "Extensions")]
    extensions: BTreeMap<String, String>,
}

impl Sample {
    fn said(&self) -> Said {
        let ContextAttributes { specversion, event_type, time, id, source, extensions } =
            &self.context_attributes;
        let mut attributes = extensions.clone();
        for (name, value) in [
            ("specversion", specversion),
            ("type", event_type),
            ("time", time),
            ("id", id),
            ("source", source),
        ] {
            attributes.insert(name.to_owned(), value.clone());
        }
        Said { attributes, payload: self.data.clone().into() }
    }
}

#[tokio::test]
async fn every_sample_event() {
    let Some(text) = file("v1.yaml") else { return };
    let samples: Vec<Sample> = serde_saphyr::from_multiple(&text).unwrap();
    assert!(samples.len() >= 2, "{samples:?}");
    for sample in samples {
        println!("{sample:?}");
        let mut said = sample.said();
        let (mut headers, body) = match &*sample.mode {
            "binary" => (said.headers(), sample.data.clone()),
            "structured" => {
                let mut members = json!(said.attributes);
                members["data"] = serde_json::from_str(&sample.data).unwrap();
                // Where nothing else is said the data of a document is JSON, as it stands there.
                said.payload = members["data"].to_string().into();
                said.attributes.insert("datacontenttype".into(), "application/json".into());
                (vec![("content-type".into(), STRUCTURED.into())], members.to_string())
            }
            other => panic!("a mode that is not known: {other}"),
        };
        headers.extend(sample.transport_extensions);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let mut road = road(&said).await;
        stored(road.post("/publish", &headers, body).await);
        road.brings(&said).await;
    }
}

/// As much of the language of `.feature` files as the conformance data needs; what is not
/// understood fails.
mod gherkin {
    /// A step of a scenario, without its keyword.
    #[derive(Clone, Debug, Default)]
    pub(super) struct Step {
        pub(super) text: String,
        /// What stands between `"""` below it.
        pub(super) document: String,
        /// The table below it.
        pub(super) table: Vec<Vec<String>>,
    }

    /// The steps under one heading.
    #[derive(Default)]
    struct Outline {
        name: String,
        steps: Vec<Step>,
        /// Of a scenario that is played once for each row below the first.
        examples: Option<Vec<Vec<String>>>,
    }

    /// All scenarios by name, those of an outline for each of its examples; the steps of the
    /// background are before their own.
    pub(super) fn scenarios(text: &str) -> Vec<(String, Vec<Step>)> {
        let (background, outlines) = outlines(text);
        let mut scenarios = Vec::new();
        for Outline { name, steps, examples } in outlines {
            let steps = [&background[..], &steps].concat();
            let Some(examples) = examples else {
                scenarios.push((name, steps));
                continue;
            };
            let [head, rows @ ..] = &examples[..] else { panic!("{name}: no examples") };
            for row in rows {
                let filled = |text: &str| {
                    head.iter().zip(row).fold(text.to_owned(), |text, (name, value)| {
                        text.replace(&format!("<{name}>"), value)
                    })
                };
                let steps = steps.iter().map(|step| Step {
                    text: filled(&step.text),
                    document: filled(&step.document),
                    table: step
                        .table
                        .iter()
                        .map(|row| row.iter().map(|cell| filled(cell)).collect())
                        .collect(),
                });
                scenarios.push((filled(&name), steps.collect()));
            }
        }
        scenarios
    }

    /// The background's steps, and the scenarios as they are written.
    fn outlines(text: &str) -> (Vec<Step>, Vec<Outline>) {
        let mut parts: Vec<Outline> = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let content = line.trim();
            let (keyword, rest) = content.split_once([' ', ':']).unwrap_or((content, ""));
            let step = || Step { text: rest.trim().to_owned(), ..Step::default() };
            match (keyword, parts.last_mut()) {
                ("Background", _) => parts.push(Outline::default()),
                ("Scenario", _) => {
                    let name = content.split_once(':').unwrap().1.trim().to_owned();
                    parts.push(Outline { name, ..Outline::default() });
                }
                ("Given" | "When" | "Then" | "And" | "But", Some(part)) => part.steps.push(step()),
                ("Examples", Some(part)) => part.examples = Some(Vec::new()),
                ("\"\"\"", Some(part)) => {
                    let indent = line.len() - line.trim_start().len();
                    let document: Vec<_> = lines
                        .by_ref()
                        .take_while(|line| line.trim() != "\"\"\"")
                        .map(|line| line.get(indent..).unwrap_or_default())
                        .collect();
                    part.steps.last_mut().unwrap().document = document.join("\n");
                }
                _ if content.starts_with('|') => {
                    let part = parts.last_mut().unwrap();
                    let cells = content.trim_matches('|').split('|');
                    let row = cells.map(|cell| cell.trim().to_owned()).collect();
                    match &mut part.examples {
                        Some(examples) => examples.push(row),
                        None => part.steps.last_mut().unwrap().table.push(row),
                    }
                }
                // Tags, comments and what is said of the feature as a whole.
                (_, None) => {}
                _ if content.is_empty() || content.starts_with(['@', '#']) => {}
                _ => panic!("not understood: {line}"),
            }
        }
        let background = parts.remove(0);
        assert!(background.name.is_empty(), "no background");
        (background.steps, parts)
    }
}
