"""The dashboard as a picture, of a real service and Prometheus: `-m deploy.grafana.picture BUNDLE NEW LOG PNG`.

Debian has no Grafana, so matplotlib draws what the panels' own queries answer. Two workers are asked about rows of LOG
(Parquet) by a few clients, with NEW in the shadow. Halfway, prices are multiplied, every city is new, and one worker is
killed; after three quarters NEW takes the place of BUNDLE. matplotlib is not among the project's packages:
`pip install matplotlib` first. Knows the dashboard's JSON and Prometheus's API. Does not know what the metrics mean.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from contract.bundle import publish_bundle, read_bundle
from deploy.debian import command

HERE = Path(__file__).parent
PORT, ADMIN, PROMETHEUS = 18080, 18081, 18082
CANDIDATES, CLIENTS, PAUSE_S = 50, 3, 0.02
SETTINGS = {"FULLFUNNEL_DRIFT_EVERY": "1", "FULLFUNNEL_DRIFT_WINDOW_S": "60", "FULLFUNNEL_SHADOW_EVERY": "2"}


@contextmanager
def running(*command: object, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended afterwards."""
    process = subprocess.Popen(
        [str(part) for part in command], env={**os.environ, **environment}, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def wait(url: str) -> None:
    """Until it answers 200."""
    for _ in range(600):
        with suppress(OSError), urllib.request.urlopen(url) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise SystemExit(f"{url} does not answer")


def client(bundle: Path, log: Path, shifted: threading.Event, stop: threading.Event, seed: int) -> None:
    """Asks one request after the other, about candidates drawn from the log."""
    features = {
        side: [f.name for f in read_bundle(bundle).manifest.features if f.side == side] for side in ("user", "item")
    }
    rows = pq.ParquetFile(log).read_row_group(0, columns=features["user"] + features["item"])
    rng, table = random.Random(seed), rows.slice(0, 20_000).to_pylist()
    while not stop.is_set():
        person = rng.choice(table)
        user = {name: person[name] for name in features["user"]}
        shown = [rng.choice(table) for _ in range(rng.randint(1, 2 * CANDIDATES))]
        candidates = {name: [row[name] for row in shown] for name in features["item"]}
        if shifted.is_set():
            user["city"] = "a new city"
            candidates["price"] = [None if price is None else 10 * price for price in candidates["price"]]
        if rng.random() < 0.02:
            user["city"] = 1  # refused
        request = urllib.request.Request(
            f"http://127.0.0.1:{PORT}/v1/predict",
            json.dumps({"user": user, "candidates": candidates}, default=str).encode(),
            {"content-type": "application/json"},
        )
        with suppress(OSError):
            urllib.request.urlopen(request).read()
        time.sleep(PAUSE_S)


def answers(query: str, start: float, stop: float) -> list[dict[str, Any]]:
    """Prometheus's series for a query of the dashboard."""
    query = query.replace("$instance", ".*").replace("$__rate_interval", "15s")
    asked = urllib.parse.urlencode({"query": query, "start": start, "end": stop, "step": 2})
    with urllib.request.urlopen(f"http://127.0.0.1:{PROMETHEUS}/api/v1/query_range?{asked}") as answer:
        found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return found


def _of(point: tuple[float, str]) -> float:
    return float(point[1])


def operate(path: str, bundle: str) -> None:
    """Ask for a change of the model."""
    body, headers = json.dumps({"bundle": bundle}).encode(), {"content-type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{ADMIN}/{path}", body, headers)).read()


def publish(folder: Path, bundle: Path, new: Path) -> tuple[Path, Path]:
    """Both as versions of one model."""
    found = [read_bundle(path) for path in (bundle, new)]
    for version, each in zip("12", found, strict=True):
        facts = {"name": found[0].manifest.name, "version": version}
        publish_bundle(folder / version, each.manifest.model_copy(update=facts), each.files)
    return folder / "1", folder / "2"


def draw(start: float, stop: float, lines: Sequence[float], picture: Path) -> None:
    """Every panel, three in a row."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    panels = json.loads((HERE / "dashboard.json").read_text())["panels"][:-1]  # the last is a name
    figure, axes = plt.subplots(-(-len(panels) // 3), 3, figsize=(18, 3.4 * -(-len(panels) // 3)), layout="constrained")
    for axis, panel in zip(axes.flat, panels, strict=True):
        for target in panel["targets"]:
            found = [series for series in answers(target["expr"], start, stop) if any(map(_of, series["values"]))]
            for series in sorted(found, key=lambda series: -max(map(_of, series["values"])))[:8]:
                label = target["legendFormat"]
                for name, value in series["metric"].items():
                    label = label.replace("{{" + name + "}}", value)
                points = [(float(at) - start, float(value)) for at, value in series["values"]]
                axis.plot(*zip(*points, strict=True), label=label, linewidth=1.2)
        for line in lines:
            axis.axvline(line - start, color="grey", linestyle=":", linewidth=1)
        axis.set_title(f"{panel['title']}  [{panel['fieldConfig']['defaults']['unit']}]", fontsize=10, loc="left")
        axis.set_ylim(bottom=0, top=axis.get_ylim()[1] * 1.15)
        axis.tick_params(labelsize=8)
        if axis.lines:
            axis.legend(fontsize=7, ncols=2, loc="upper left", framealpha=0.6)
    figure.supxlabel(
        "seconds; at the first line prices grow tenfold, every city is new, and a worker is killed; at the second the "
        "model in the shadow takes over",
        fontsize=10,
    )
    figure.savefig(picture, dpi=80)


def main() -> None:
    """Serve, scrape, ask, draw."""
    parser = argparse.ArgumentParser(prog="python -m deploy.grafana.picture", description=__doc__)
    for name in ("bundle", "new", "log", "picture"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seconds", type=float, default=180)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bundle, new = publish(folder, options.bundle, options.new)
        serve = (sys.executable, "-m", "service", bundle, "--port", PORT, "--admin-port", ADMIN, "--workers", 2)
        service = stack.enter_context(running(*serve, **SETTINGS))
        wait(f"http://127.0.0.1:{PORT}/readyz")
        target = json.dumps([{"targets": [f"127.0.0.1:{ADMIN}"]}])
        job = f"  - {{job_name: fullfunnel, static_configs: {target}}}"
        (folder / "prometheus.yml").write_text(f"global: {{scrape_interval: 1s}}\nscrape_configs:\n{job}\n")
        listen, storage = f"--web.listen-address=127.0.0.1:{PROMETHEUS}", f"--storage.tsdb.path={folder}/data"
        stack.enter_context(running(*command("prometheus"), f"--config.file={folder}/prometheus.yml", listen, storage))
        wait(f"http://127.0.0.1:{PROMETHEUS}/-/ready")
        shifted, stop = threading.Event(), threading.Event()
        clients = [
            threading.Thread(target=client, args=(bundle, options.log, shifted, stop, seed)) for seed in range(CLIENTS)
        ]
        for one in clients:
            one.start()
        operate("shadow", new.name)
        start = time.time()
        time.sleep(options.seconds / 2)
        half = time.time()
        shifted.set()
        children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        time.sleep(options.seconds / 4)
        quarter = time.time()
        operate("swap", new.name)
        time.sleep(options.seconds / 4)
        stop.set()
        for one in clients:
            one.join()
        draw(start, time.time(), (half, quarter), options.picture)


if __name__ == "__main__":
    main()
