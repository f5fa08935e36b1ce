"""The official Python client against the API: what a controller in Python does.

    client.py KUBECONFIG
"""

import sys
import threading

from kubernetes import client, config, dynamic, watch

config.load_kube_config(sys.argv[1])
GROUP, VERSION, NAMESPACE, PLURAL = "eventing.kyma.cx", "v1alpha1", "python", "subscriptions"
api = client.CustomObjectsApi()
core = client.CoreV1Api()


def subscription(name):
    return {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": "Subscription",
        "metadata": {"name": name, "labels": {"lang": "python"}},
        "spec": {"endpoint": "http://shop.example/", "event_type": "order.created",
                 "event_type_version": "v1", "source_id": "shop"},
    }


core.create_namespace({"metadata": {"name": NAMESPACE}})
assert NAMESPACE in [one.metadata.name for one in core.list_namespace().items]

# A watch from a list sees everything that follows, in order.
listed = api.list_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL)
assert listed["items"] == []
seen, enough = [], threading.Event()


def follow():
    stream = watch.Watch().stream(
        api.list_namespaced_custom_object, GROUP, VERSION, NAMESPACE, PLURAL,
        resource_version=listed["metadata"]["resourceVersion"], timeout_seconds=20,
    )
    for event in stream:
        seen.append((event["type"], event["object"]["metadata"]["name"]))
        if ("DELETED", "b") in seen:
            enough.set()
            return


follower = threading.Thread(target=follow, daemon=True)
follower.start()
for name in ["a", "b"]:
    made = api.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, subscription(name))
    assert made["spec"]["max_inflight"] == 10, made
try:
    api.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, subscription("a"))
    raise SystemExit("a second one of the same name was taken")
except client.ApiException as refused:
    assert (refused.status, refused.reason) == (409, "Conflict"), refused

patched = api.patch_namespaced_custom_object(
    GROUP, VERSION, NAMESPACE, PLURAL, "a", {"spec": {"max_inflight": 7}}
)
assert (patched["spec"]["max_inflight"], patched["metadata"]["generation"]) == (7, 2), patched
chosen = api.list_namespaced_custom_object(
    GROUP, VERSION, NAMESPACE, PLURAL, label_selector="lang=python", limit=1
)
assert len(chosen["items"]) == 1 and chosen["metadata"]["continue"], chosen

api.delete_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, "b")
assert enough.wait(20), seen
assert ("ADDED", "a") in seen and ("ADDED", "b") in seen and ("MODIFIED", "a") in seen, seen

# The dynamic client finds the resources by discovery.
found = dynamic.DynamicClient(client.ApiClient()).resources.get(
    api_version=f"{GROUP}/{VERSION}", kind="Subscription"
)
assert [one.metadata.name for one in found.get(namespace=NAMESPACE).items] == ["a"]

core.delete_namespace(NAMESPACE)
print("done")
