"""NATS servers that fail as they are told, and the roads between those of a cluster.

Everything listens on loopback, on ports that the system chose, and ends with the script.
"""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import rig

STREAM = "EB_EVENTS"
NOWHERE = "127.0.0.1:1"  # told to servers that would connect past the roads


def program():
    """Where the program is; ends the script, with success, where there is none."""
    found = subprocess.run([rig.ROOT / "tools" / "nats-server"], stdout=subprocess.PIPE, text=True)
    if found.returncode != 0:
        print("SKIPPED: no nats-server")
        sys.exit(0)
    return found.stdout.strip()


class Server:
    """A NATS server that can be killed and started again on the same store and ports."""

    def __init__(self, program, place, name, cluster="", sync=""):
        self.name, self.at = name, f"127.0.0.1:{rig.free_port()}"
        self.monitor = f"127.0.0.1:{rig.free_port()}"
        self._config, self.store = place / f"{name}.conf", place / f"store-{name}"
        self._config.write_text(
            f'listen: "{self.at}"\nhttp: "{self.monitor}"\nserver_name: "{name}"\n'
            f'jetstream {{ store_dir: "{self.store}", max_file_store: 16GB, {sync} }}\n'
            f"{cluster}"
        )
        self.tracer = []  # a command that looks on while the server runs
        self._command = [program, "-c", self._config, "-l", place / f"{name}.log"]
        self.child = None

    def start(self):
        self.child = subprocess.Popen([*self.tracer, *self._command], stdin=subprocess.DEVNULL,
                                      preexec_fn=rig.die_with_us)

    def kill(self):
        self.child.kill()
        self.child.wait()

    def until_there(self):
        """Waits until it takes clients; returns when that was."""
        rig.until(self._greets, f"{self.name} takes clients")
        return time.monotonic()

    def _greets(self):
        if self.child.poll() is not None:
            self.start()  # somebody else had its port for a moment
        host, port = self.at.split(":")
        with contextlib.suppress(OSError):
            with socket.create_connection((host, int(port)), timeout=1) as connection:
                return connection.recv(4) == b"INFO"
        return False

    def monitored(self, path):
        """What its monitoring port says; nothing when it does not answer well."""
        with contextlib.suppress(OSError, ValueError):
            with urllib.request.urlopen(f"http://{self.monitor}/{path}", timeout=1) as answer:
                return json.load(answer)
        return {}

    def is_healthy(self):
        return self.monitored("healthz").get("status") == "ok"

    def leader(self):
        """Who leads the stream of events, as far as it knows."""
        for account in self.monitored("jsz?streams=1").get("account_details", []):
            for stream in account.get("stream_detail", []):
                if stream["name"] == STREAM:
                    return stream.get("cluster", {}).get("leader")
        return None

    def buses(self):
        """How many processes of the bus are its clients."""
        connections = self.monitored("connz").get("connections", [])
        return sum(one.get("name") == "eventbus" for one in connections)


class Road:
    """The way from one server to another's cluster port, which can be cut."""

    def __init__(self, target):
        self._target = target
        self._open = threading.Event()
        self._open.set()
        self._is_closed = False
        self._ends = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.at = "127.0.0.1:%d" % self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, silently):
        """From now on nothing passes: held back, or refused by closed connections."""
        if silently:
            self._open.clear()
            return
        self._is_closed = True
        for end in list(self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self):
        self._is_closed = False
        self._open.set()

    def _accept(self):
        while True:
            near, _ = self._listener.accept()
            self._open.wait()
            try:
                if self._is_closed:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self._target), timeout=1)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._ends |= {near, far}
            for ends in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source, sink):
        piece = True
        while piece:
            piece = b""
            with contextlib.suppress(OSError):
                piece = source.recv(1 << 16)
            # An end of a connection does not get past a silent cut either.
            self._open.wait()
            with contextlib.suppress(OSError):
                sink.sendall(piece)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends -= {source, sink}


def cluster(program, place, names):
    """Servers that are to find each other, and the roads between them by their two ends."""
    ports = {name: rig.free_port() for name in names}
    roads = {(one, other): Road(ports[other]) for one in names for other in names if one != other}
    servers = []
    for name in names:
        routes = ", ".join(f'"nats://{road.at}"' for (one, _), road in roads.items() if one == name)
        settings = (f'cluster {{ name: "faults", listen: "127.0.0.1:{ports[name]}", '
                    f'advertise: "{NOWHERE}", routes: [{routes}] }}\n')
        servers.append(Server(program, place, name, settings))
    return servers, roads
