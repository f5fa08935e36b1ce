//! The thinnest whole road, through `kube`.

use futures::{StreamExt, TryStreamExt};
use kube::{
    api::{
        DynamicObject, ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
    runtime::watcher,
};
use serde_json::json;

use crate::fixture::{Fixture, widget, widget_resource};

fn made(name: &str) -> DynamicObject {
    serde_json::from_value(widget(name, 3)).unwrap()
}

#[tokio::test]
async fn create_get_list_watch_and_patch_the_status() {
    let fixture = Fixture::new().await;
    let widgets = fixture.widgets("stage");
    let created = widgets.create(&PostParams::default(), &made("one")).await.unwrap();
    assert_eq!(created.metadata.generation, Some(1));
    assert_eq!(created.data["spec"]["timeout_ms"], 1000);
    assert_eq!(widgets.get("one").await.unwrap(), created);
    let list = widgets.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items, std::slice::from_ref(&created));
    let revision = list.metadata.resource_version.unwrap();
    let watch = widgets.watch(&WatchParams::default(), &revision).await.unwrap();
    futures::pin_mut!(watch);
    let status = json!({ "status": { "made": 2 } });
    let patched =
        widgets.patch_status("one", &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    assert_eq!(patched.data["status"]["made"], 2);
    assert_eq!(patched.metadata.generation, Some(1));
    match watch.try_next().await.unwrap() {
        Some(WatchEvent::Modified(seen)) => assert_eq!(seen, patched),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn both_kinds_of_watcher_see_everything() {
    let configs = [watcher::Config::default(), watcher::Config::default().streaming_lists()];
    for config in configs {
        let fixture = Fixture::new().await;
        fixture.create("stage", "before", 1).await;
        let all: kube::Api<DynamicObject> =
            kube::Api::all_with(fixture.client(), &widget_resource());
        let watch = watcher(all, config);
        futures::pin_mut!(watch);
        let mut seen = Vec::new();
        let note = |event| match event {
            watcher::Event::Init => "init".to_owned(),
            watcher::Event::InitApply(object) => format!("found {}", name(&object)),
            watcher::Event::InitDone => "done".to_owned(),
            watcher::Event::Apply(object) => format!("apply {}", name(&object)),
            watcher::Event::Delete(object) => format!("delete {}", name(&object)),
        };
        for _ in 0..3 {
            seen.push(note(watch.next().await.unwrap().unwrap()));
        }
        fixture.create("other", "after", 1).await;
        seen.push(note(watch.next().await.unwrap().unwrap()));
        let params = Default::default();
        fixture.widgets("stage").delete("before", &params).await.unwrap();
        seen.push(note(watch.next().await.unwrap().unwrap()));
        assert_eq!(seen, ["init", "found before", "done", "apply after", "delete before"]);
    }
}

fn name(object: &DynamicObject) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn a_watcher_reads_page_by_page_and_metadata_alone_suffices() {
    let fixture = Fixture::new().await;
    for number in 0..7 {
        fixture.create("stage", &format!("w{number}"), 1).await;
    }
    let config = watcher::Config::default().page_size(2);
    let widgets: kube::Api<PartialObjectMeta<DynamicObject>> =
        kube::Api::namespaced_with(fixture.client(), "stage", &widget_resource());
    let watch = watcher(widgets, config);
    futures::pin_mut!(watch);
    let mut found = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            watcher::Event::Init => {}
            watcher::Event::InitApply(object) => found.extend(object.metadata.name),
            watcher::Event::InitDone => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(found, ["w0", "w1", "w2", "w3", "w4", "w5", "w6"]);
    fixture.create("stage", "w7", 1).await;
    match watch.next().await.unwrap().unwrap() {
        watcher::Event::Apply(object) => {
            assert_eq!(object.metadata.name.as_deref(), Some("w7"));
            assert_eq!(object.types.unwrap().kind, "PartialObjectMetadata");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn kube_reads_errors_as_they_are_meant() {
    let fixture = Fixture::new().await;
    let widgets = fixture.widgets("stage");
    assert_eq!(widgets.get_opt("none").await.unwrap(), None);
    let created = widgets.create(&PostParams::default(), &made("one")).await.unwrap();
    let again = widgets.create(&PostParams::default(), &made("one")).await;
    assert!(matches!(again, Err(kube::Error::Api(status)) if status.is_already_exists()));
    let mut newer = created.clone();
    newer.data["spec"]["size"] = 4.into();
    widgets.replace("one", &PostParams::default(), &newer).await.unwrap();
    let stale = widgets.replace("one", &PostParams::default(), &newer).await;
    assert!(matches!(stale, Err(kube::Error::Api(status)) if status.is_conflict()));
}
