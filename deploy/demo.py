"""The last step of `make demo`: serve a bundle, ask for 100 candidates of one user, show the answer, stop.

    python deploy/demo.py BUNDLE LOG

Knows the HTTP interface. Does not know how a score is made: it starts the service as anyone would.
"""

import argparse
import http.client
import json
import math
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from contract.bundle import Manifest, read_bundle
from contract.errors import FullfunnelError, NotReady, SourceMissing

CANDIDATES, SHOWN = 100, 10
START_TIMEOUT_S = 60


def main() -> int:
    """Serve, ask, show, stop."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path, help="directory of the bundle to serve")
    parser.add_argument("log", type=Path, help="Parquet file whose last rows are asked about")
    arguments = parser.parse_args()
    console = Console()
    try:
        manifest = read_bundle(arguments.bundle).manifest
        request = request_from(arguments.log, manifest)
        port = free_port()
        service = subprocess.Popen(
            [sys.executable, "-m", "service", str(arguments.bundle), "--port", str(port), "--drain-delay-s", "0"]
        )
        try:
            wait_until_ready(service, port)
            started = time.perf_counter()
            answer = call(port, "POST", "/v1/predict", request)
            elapsed_ms = (time.perf_counter() - started) * 1e3
        finally:
            stop(service)
    except FullfunnelError as error:
        console.print(f"demo: {error}", style="red", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("demo: stopped")
        return 130
    show(console, request, answer, elapsed_ms)
    return 0


def request_from(log: Path, manifest: Manifest) -> dict[str, Any]:
    """The user of the log's last row, and the items of its last rows as candidates. Raises: SourceMissing."""
    names = [feature.name for feature in manifest.features]
    try:
        file = pyarrow.parquet.ParquetFile(log)
        rows = file.read_row_groups(range(file.num_row_groups)[-2:], columns=names)
    except (OSError, pyarrow.ArrowException):
        raise SourceMissing("no Parquet file that can be read", place=str(log), remedy="name a log") from None
    last = rows.slice(max(0, rows.num_rows - CANDIDATES)).to_pydict()
    columns = {name: [_plain(value) for value in values] for name, values in last.items()}
    sides = {feature.name: feature.side for feature in manifest.features}
    joint = next((output.name for output in reversed(manifest.outputs)), None)
    return {
        "user": {name: values[-1] for name, values in columns.items() if sides[name] == "user"},
        "candidates": {name: values for name, values in columns.items() if sides[name] == "item"},
        "top_k": SHOWN,
        "order_by": joint,
    }


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(service: "subprocess.Popen[bytes]", port: int) -> None:
    """Ask /readyz until it says so. Raises: NotReady."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and service.poll() is None:
        try:
            call(port, "GET", "/readyz")
            return
        except (OSError, NotReady):
            time.sleep(0.1)
    raise NotReady("the service did not come up", place=f"127.0.0.1:{port}", remedy="its message stands above")


def call(port: int, method: str, path: str, body: object = None) -> dict[str, Any]:
    """One request. Raises: NotReady (any other status than 200), OSError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        content = None if body is None else json.dumps(body, allow_nan=False)
        connection.request(method, path, content, {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise NotReady(f"status {response.status}: {text.decode(errors='replace')}", place=f"{method} {path}")
    answer: dict[str, Any] = json.loads(text)
    return answer


def stop(service: "subprocess.Popen[bytes]") -> None:
    """End the process that was started here, and no other."""
    service.terminate()
    try:
        service.wait(timeout=10)
    except subprocess.TimeoutExpired:
        service.kill()
        service.wait()


def show(console: Console, request: dict[str, Any], answer: dict[str, Any], elapsed_ms: float) -> None:
    """The best candidates as a table."""
    model = answer["model"]
    scores = [name for name, values in answer.items() if name not in {"model", "index"} and isinstance(values, list)]
    candidates = request["candidates"]
    key = "item_id" if "item_id" in candidates else next(iter(candidates))
    table = Table(
        title=f"the best {len(answer['index'])} of {len(candidates[key])} candidates by {request['order_by']}",
        caption=f"{model['name']} {model['version']}, digest {model['digest'][:12]}, answered in {elapsed_ms:.1f} ms",
    )
    for name in ("index", key, *scores):
        table.add_column(name, justify="right")
    for rank, index in enumerate(answer["index"]):
        table.add_row(str(index), str(candidates[key][index]), *(f"{answer[name][rank]:.6f}" for name in scores))
    console.print(table)


def _plain(value: Any) -> Any:
    """What JSON can hold: missing numbers are null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main())
