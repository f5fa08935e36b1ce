//! The thinnest whole road, through `kube`.

use futures::{StreamExt, TryStreamExt};
use kube::{
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
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
    assert_eq!(list.items, [created.clone()]);
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
