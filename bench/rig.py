"""What the comparisons share: servers that end with the block, and runs of the load generator."""

import contextlib
import json
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
READY_S = 30
END_S = 15


def build():
    command = ["cargo", "build", "--release", "-p", "eventbus", "-p", "eventbus-yardstick"]
    subprocess.run(command, cwd=ROOT, check=True)


def commit():
    """The commit of this checkout, which what is measured was built from, marked where it has
    changes."""
    with contextlib.suppress(OSError):
        command = ["git", "describe", "--always", "--dirty"]
        described = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return described.stdout.strip() or "unknown"
    return "unknown"


def compare(name, target, ours, theirs):
    """Prints one comparison, by the median of the rounds; returns whether it reaches its target."""
    ratio = statistics.median(one / other for one, other in zip(ours, theirs))
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    verdict = "reached" if ratio >= target else "MISSED"
    print(f"{name:<20}{ours:>9,.0f}/s of {theirs:>9,.0f}/s = {ratio:.3f}, at least {target}: {verdict}")
    return ratio >= target


def rounds(args, runs):
    """Makes the runs by turns, every second time the other way; returns their rates."""
    rates = {run.__name__: [] for run in runs}
    circumstances = None
    for number in range(args.rounds):
        for run in runs if number % 2 == 0 else reversed(runs):
            report = run(args)
            result = report["result"]
            flow = result["delivered"] or result["published"]
            rates[run.__name__].append(flow["rate_per_s"])
            if "machine" in report:
                circumstances = f"commit {commit()}, {report['machine']}"
            say(f"round {number + 1}: {run.__name__:<20}{line(flow)}")
    print(circumstances)
    load = f"{args.connections} connections, {args.payload} bytes"
    print(f"{load}, {args.rounds} rounds of {args.duration}, alternating")
    return rates


def load(parser):
    """The arguments that say how much is asked of what is compared."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", default="10s", help="measured time of each run")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--payload", type=int, default=1024, help="bytes of each event")
    parser.add_argument(
        "--window", type=int, default=1024, help="undelivered events at most, end to end"
    )
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target" / "release")
    parser.add_argument("--no-build", action="store_true", help="take the binaries as they are")
    return parser


def bench(args, *more):
    """One run of the load generator; returns its report."""
    command = [args.bin / "eventbus", "bench", "--json", "--warm-up", "3s"]
    command += ["--duration", args.duration, "--connections", str(args.connections)]
    command += ["--payload", str(args.payload), *more]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if ended.returncode != 0:
        sys.exit(f"this run failed: {' '.join(map(str, command))}")
    return json.loads(ended.stdout)


@contextlib.contextmanager
def yardstick(args, *what):
    """A yardstick; gives its URL."""
    command = [args.bin / "yardstick", *what]
    with process(command, stdout=subprocess.PIPE, text=True) as server:
        yield server.stdout.readline().strip()


@contextlib.contextmanager
def bus(args, *more):
    """A bus with an empty data directory, on the disk the build is on; gives where it is."""
    data = ROOT / "target" / "compare"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    publish_at, api_at = (f"127.0.0.1:{free_port()}" for _ in range(2))
    command = [args.bin / "eventbus", "serve", "--data-dir", data / "data"]
    command += ["--publish-listen", publish_at, "--api-listen", api_at, *more]
    try:
        with open(data / "log", "w") as log, process(command, stdout=log, stderr=log) as server:
            await_ready(server, publish_at, data / "log")
            url = f"http://{publish_at}/v1/events"
            yield ["--url", url, "--kubeconfig", str(data / "data" / "kubeconfig")]
    finally:
        shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def process(command, **options):
    """A child that ends with the block."""
    child = subprocess.Popen(command, cwd=ROOT, **options)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def await_ready(server, address, log):
    until = time.monotonic() + READY_S
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError):
            with urllib.request.urlopen(f"http://{address}/v1/status/ready", timeout=1):
                return
        time.sleep(0.01)
    sys.exit(f"the bus does not get ready; it said:\n{log.read_text()}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def line(flow):
    rate = f"{flow['rate_per_s']:>9,.0f}/s"
    latency = flow.get("latency")
    if not latency:
        return rate
    return f"{rate}, p50 {latency['p50_us']} µs, p99 {latency['p99_us']} µs"


def say(text):
    print(text, file=sys.stderr, flush=True)
