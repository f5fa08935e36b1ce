"""The CloudEvents SDK as a publisher, and as a reader of what is delivered.

    sdk.py publish URL   publishes each of EVENTS in both modes; prints what each says
    sdk.py read          reads deliveries, one a line; prints what each says

A delivery is {"headers": {...}, "body": base64}. What an event says is {"attributes": {...},
"data": ...}: attributes as text, bytes as {"base64": ...}.
"""

import base64
import datetime
import http.client
import json
import sys
import urllib.parse

from cloudevents.core.bindings import http as binding
from cloudevents.core.v03.event import CloudEvent as OldEvent
from cloudevents.core.v1.event import CloudEvent

TIME = datetime.datetime(2018, 4, 5, 17, 31, tzinfo=datetime.timezone.utc)
BASE = {"source": "/mycontext", "type": "com.example.someevent", "time": TIME}
EVENTS = [
    (CloudEvent, {"datacontenttype": "application/json", "subject": "s"}, {"a": [1, "é"]}),
    (CloudEvent, {"datacontenttype": "text/xml; charset=utf-8", "note": 'Euro € "😀" 50%'}, "<é/>"),
    (CloudEvent, {"datacontenttype": "image/png", "dataschema": "https://a.b/c"}, b"\xff\x00"),
    (CloudEvent, {"rank": -5, "urgent": "true"}, None),
    (OldEvent, {"datacontenttype": "application/json", "schemaurl": "https://a.b/c"}, {"a": 1}),
    (OldEvent, {"datacontenttype": "image/png"}, b"\xff\x00"),
]


def text(value):
    if isinstance(value, datetime.datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value if isinstance(value, str) else json.dumps(value)


def tell(event):
    data = event.get_data()
    attributes = {name: text(value) for name, value in event.get_attributes().items()}
    if isinstance(data, bytes):
        data = {"base64": base64.b64encode(data).decode()}
        # In 0.3 that is how the data is written, not what it is.
        attributes.pop("datacontentencoding", None)
    print(json.dumps({"attributes": attributes, "data": data}))


def publish(url):
    address = urllib.parse.urlsplit(url)
    # Which adds no headers of its own, as more comfortable clients do.
    connection = http.client.HTTPConnection(address.netloc, timeout=30)
    for number, (make, attributes, data) in enumerate(EVENTS):
        for mode in [binding.to_binary_event, binding.to_structured_event]:
            event = make(BASE | attributes | {"id": f"{mode.__name__}-{number}"}, data)
            sent = mode(event)
            connection.request("POST", address.path, sent.body, sent.headers)
            answer = connection.getresponse()
            told = answer.status, answer.headers["Eventbus-Status"], answer.read()
            assert told == (204, "published", b""), told
            tell(event)


def read():
    for line in sys.stdin:
        delivery = json.loads(line)
        body = base64.b64decode(delivery["body"])
        tell(binding.from_http_event(binding.HTTPMessage(delivery["headers"], body)))


if sys.argv[1] == "publish":
    publish(sys.argv[2])
else:
    read()
