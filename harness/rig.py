"""What the harnesses share: a bus as a child process, a subscriber, publishers, and a journal.

Everything listens on loopback, on ports that the system chooses, and ends with the script. The
payload of an event follows from its id, so that a subscriber can tell a true one.
"""

import argparse
import collections
import contextlib
import ctypes
import http.client
import http.server
import itertools
import json
import os
import pathlib
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATIENCE_S = 60
SUBSCRIPTIONS = "/apis/eventing.kyma.cx/v1alpha1/namespaces/stage/subscriptions"
ACTIVATIONS = (
    "/apis/applicationconnector.kyma-project.io/v1alpha1/namespaces/stage/eventactivations"
)
GONE = (OSError, http.client.HTTPException)
# In each event's id: a port that one run gave up may be another's now, and must not take its events.
RUN = f"{os.getpid() % 0x10000:04x}"

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """The bus did not do what it promises."""


def arguments(doc):
    """A parser with what every harness can be told."""
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=shape)
    program = ROOT / "target" / "release" / "eventbus"
    parser.add_argument("--program", type=pathlib.Path, default=program, help="the built program")
    parser.add_argument("--dir", type=pathlib.Path, help="where to work; default: beside the build")
    return parser


@contextlib.contextmanager
def workplace(args):
    """A directory for the run, on the disk of the build: it is a real one more often than /tmp."""
    where = args.dir or args.program.resolve().parent
    with tempfile.TemporaryDirectory(prefix="harness-", dir=where) as path:
        yield pathlib.Path(path).resolve()


def circumstances():
    """Commit and machine, for the record of a run."""

    def said(*command):
        with contextlib.suppress(OSError):
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            return ended.stdout.strip()
        return ""

    commit = said("git", "rev-parse", "--short=10", "HEAD") or "unknown"
    changed = said("git", "status", "--porcelain", "--untracked-files=no", "--", "crates")
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                  if line.startswith("model name")), platform.machine())
    load = os.getloadavg()[0]
    return (f"commit {commit}{' with changes' if changed else ''}, {os.cpu_count()} cores, "
            f"{model}, Linux {platform.release()}, load {load:.1f}")


def require_strace():
    """Ends the script, with success, where there is no strace."""
    with contextlib.suppress(OSError):
        if subprocess.run(["strace", "-V"], capture_output=True).returncode == 0:
            return
    print("SKIPPED: no strace")
    sys.exit(0)


class Bus:
    """A bus on `data_dir`, under strace where `strace` holds arguments of it.

    What it says goes to files in the folder `beside`, which is that of the data directory unless
    told otherwise; its log goes to `log` instead where that is given.
    """

    def __init__(self, program, data_dir, flags=(), strace=(), beside=None, log=None):
        self.data_dir = data_dir
        beside = beside or data_dir.parent
        self.log = log or beside / f"{data_dir.name}.log"
        self._said = beside / f"{data_dir.name}.said"
        # -D: the bus stays our child, with its own id; the tracer looks on from the side.
        tracer = ["strace", "-D", "-f", "-y", "-Y", *strace] if strace else []
        command = [*tracer, program, "serve", "--data-dir", data_dir, *flags]
        for port in ("--publish-listen", "--api-listen"):
            command += [] if port in flags else [port, "127.0.0.1:0"]
        with open(self._said, "w") as said, open(self.log, "a") as log:
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said,
                                          stderr=log, preexec_fn=die_with_us)
        self.publish_at = self.api_at = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def until_ready(self, pause=0.005):
        """Waits until the bus is ready; returns whether it came to that."""
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            ended = self.child.poll() is not None
            said = self._said.read_text()
            if said.endswith("ready\n"):
                words = dict(line.split(None, 1) for line in said.splitlines()[:-1])
                addresses = {word: rest.removeprefix("http://").split("/")[0].strip()
                             for word, rest in words.items()}
                # A process that only delivers has no publish port, and may serve probes alone.
                self.publish_at = addresses.get("publish")
                self.api_at = addresses.get("API") or addresses["probes"]
                return True
            if ended:
                return False
            time.sleep(pause)
        raise Failed(f"not ready after {PATIENCE_S} s; it said: {self.log.read_text()[-2000:]}")

    def lives(self):
        return self.child.poll() is None

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        """SIGTERM; returns the exit code."""
        self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"still there {PATIENCE_S} s after SIGTERM") from None

    def ask(self, address, method, path, body=None, headers=()):
        """One request on a connection of its own; returns status and body."""
        connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def api(self, method, path, resource=None, headers=()):
        """Asks the API port with the token."""
        token = (self.data_dir / "token").read_text().strip()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} | dict(
            headers)
        body = json.dumps(resource) if resource is not None else None
        return self.ask(self.api_at, method, path, body, headers)

    def is_ready(self):
        return self.ask(self.api_at, "GET", "/readyz")[0] == 200

    def complaints(self):
        """Lines of the log that report an error: damage, a failed disk."""
        return [line for line in self.log.read_text().splitlines() if " ERROR " in line]


def memory(server, which="VmRSS"):
    """MiB of resident memory of a process that we started."""
    for line in open(f"/proc/{server.child.pid}/status"):
        if line.startswith(which + ":"):
            return int(line.split()[1]) / 1024
    raise Failed("the process is gone")


def free_port():
    """A port for a server that cannot tell which one the system chose."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def die_with_us():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Subscriber:
    """Takes events and writes down the id of each, before it answers `status`."""

    def __init__(self, journal, status=200):
        self.status = status
        self.untrue = []
        self.refused = 0
        self._journal = open(journal, "a")
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Delivery)
        self._server.subscriber = self
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, event, payload):
        """Returns the status to answer."""
        if event.split("-")[1] != RUN:
            return 410
        with self._lock:
            if payload != payload_of(event, len(payload)):
                self.untrue.append(event)
            if self.status >= 300:
                self.refused += 1
            else:
                self._journal.write(event + "\n")
                self._journal.flush()
            return self.status

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._journal.close()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_):
        """A connection that broke is the bus being killed."""


class _Delivery(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        payload = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.subscriber.take(self.headers["Kyma-Event-Id"], payload)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Journal:
    """Ids of events, one a line, on disk before `add` returns."""

    def __init__(self, path):
        self.path = path
        self._file = open(path, "a")
        self._lock = threading.Lock()

    def add(self, event):
        with self._lock:
            self._file.write(event + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())


def read_journal(path):
    """How often each id stands in a journal."""
    return collections.Counter(path.read_text().split())


def event_id(number):
    return f"{number:08x}-{RUN}-4000-8000-000000000000"


def payload_of(event, size):
    """The payload of an event, as its subscriber must get it: a JSON string of `size` bytes."""
    text = (event * (size // len(event) + 1))[: size - 2]
    return f'"{text}"'.encode()


def envelope(event, size, event_type="order.created"):
    """The request body that publishes an event."""
    head = (f'{{"source-id":"shop","event-type":"{event_type}","event-type-version":"v1",'
            f'"event-id":"{event}","event-time":"2018-11-02T22:08:41Z","data":')
    return head.encode() + payload_of(event, size) + b"}"


Answer = collections.namedtuple("Answer", "event status body")


def publish(bus, numbers, size, connections, acknowledged):
    """Publishes events over some connections at once; returns every answer, in order of arrival.

    A connection that breaks ends its share. What is answered `published` goes to `acknowledged`.
    """
    answers = []
    queue, lock = iter(numbers), threading.Lock()

    def work():
        connection = http.client.HTTPConnection(bus.publish_at, timeout=PATIENCE_S)
        with contextlib.suppress(*GONE), contextlib.closing(connection):
            while True:
                with lock:
                    number = next(queue, None)
                if number is None:
                    return
                event = event_id(number)
                connection.request("POST", "/v1/events", envelope(event, size))
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200 and json.loads(body)["status"] == "published":
                    acknowledged.add(event)
                answers.append(Answer(event, answer.status, body))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def subscription(endpoint, max_inflight, name="orders", event_type="order.created"):
    return {
        "apiVersion": "eventing.kyma.cx/v1alpha1", "kind": "Subscription",
        "metadata": {"name": name, "namespace": "stage"},
        "spec": {"endpoint": endpoint, "event_type": event_type, "event_type_version": "v1",
                 "source_id": "shop", "max_inflight": max_inflight,
                 "push_request_timeout_ms": 10_000},
    }


ACTIVATION = {
    "apiVersion": "applicationconnector.kyma-project.io/v1alpha1", "kind": "EventActivation",
    "metadata": {"name": "shop", "namespace": "stage"}, "spec": {"sourceId": "shop"},
}


def create(bus, collection, resource):
    """Creates a resource; one that is there already gets its `spec`."""
    status, body = bus.api("POST", collection, resource)
    if status == 409:
        path = f"{collection}/{resource['metadata']['name']}"
        change = {"Content-Type": "application/merge-patch+json"}
        status, body = bus.api("PATCH", path, {"spec": resource["spec"]}, change)
    if status not in (200, 201):
        raise Failed(f"creating {resource['kind']}: {status} {body[:500]}")


def is_active(subscription):
    conditions = subscription.get("status", {}).get("conditions", [])
    return any(one["type"] == "events-activated" and one["status"] == "True" for one in conditions)


def until(holds, what, patience_s=PATIENCE_S, while_=lambda: True):
    """Waits until `holds()`; fails when it does not come to that, returns when `while_` ends."""
    end = time.monotonic() + patience_s
    for pause in itertools.chain([0.002] * 50, itertools.repeat(0.02)):
        if holds():
            return True
        if not while_():
            return False
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {patience_s} s")
        time.sleep(pause)
