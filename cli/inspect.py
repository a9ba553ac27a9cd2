"""`fullfunnel inspect BUNDLE`: what a bundle takes, answers, and is worth, as tables or as JSON."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from contract.bundle import Bundle, Manifest, read_bundle
from contract.features import Categorical, Feature, Numeric


def configure(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("bundle", type=Path, help="directory of the bundle")
    parser.add_argument("--json", action="store_true", help="print the manifest and the digest as JSON")


def run(args: argparse.Namespace) -> int:
    """Verify the bundle's files and print what the manifest says. The model itself is not loaded.

    Raises: BundleInvalid.
    """
    bundle = read_bundle(args.bundle)
    if args.json:
        sys.stdout.write(
            json.dumps(
                {"digest": bundle.digest, **bundle.manifest.model_dump(mode="json")}, indent=2, ensure_ascii=False
            )
            + "\n"
        )
        return 0
    console = Console(highlight=False)
    manifest = bundle.manifest
    for table in (_facts(bundle), _tasks(manifest), _outputs(manifest), _metrics(manifest), _features(manifest)):
        console.print(table, markup=False)
    console.print(_files(manifest), markup=False)
    return 0


def _facts(bundle: Bundle) -> Table:
    manifest, provenance = bundle.manifest, bundle.manifest.provenance
    libraries = ", ".join(f"{name} {version}" for name, version in provenance.libraries.items())
    return _table(
        f"{manifest.name} {manifest.version}",
        ("", ""),
        [
            ("digest", bundle.digest),
            ("format", str(manifest.format_version)),
            ("network", f"{manifest.architecture}, {manifest.parameters:,} parameters"),
            ("seed", str(provenance.seed)),
            ("data", provenance.data_fingerprint),
            ("libraries", libraries),
            ("git commit", provenance.git_commit or "unknown"),
            ("parity", f"onnx differs from torch by at most {manifest.parity:.1e}"),
        ],
    )


def _tasks(manifest: Manifest) -> Table:
    platt = {item.task: f"{item.slope:.4f} x logit {item.intercept:+.4f}" for item in manifest.calibration}
    rows = [(task.name, task.label, task.given or "", platt.get(task.name, "")) for task in manifest.tasks]
    return _table("tasks", ("task", "label", "given", "calibration"), rows)


def _outputs(manifest: Manifest) -> Table:
    scores = {score.name: score for score in manifest.reference.scores}
    rows = []
    for output in manifest.outputs:
        score = scores.get(output.name)
        mean = f"{score.mean:.5f}" if score else ""
        spread = f"{score.quantiles[0]:.5f} to {score.quantiles[-1]:.5f}" if score and score.quantiles else ""
        rows.append((output.name, output.task, output.kind, mean, spread))
    return _table("outputs", ("output", "task", "kind", "mean", "range on validation"), rows)


def _metrics(manifest: Manifest) -> Table:
    rows = [
        (metric.output, metric.name, metric.rows, f"{metric.value:.4f}", f"{metric.low:.4f} to {metric.high:.4f}")
        for metric in manifest.metrics
    ]
    return _table("metrics on the test split", ("output", "metric", "rows", "value", "95 % interval"), rows)


def _features(manifest: Manifest) -> Table:
    missing = {item.name: f"{item.missing_rate:.1%}" for item in manifest.reference.features}
    rows = [
        (
            feature.name,
            feature.side,
            _values(feature),
            _encoding(feature),
            "" if isinstance(feature, Numeric) else str(feature.dim),
            _when_missing(feature),
            missing.get(feature.name, ""),
        )
        for feature in manifest.features
    ]
    return _table("features", ("feature", "side", "values", "encoding", "dim", "if missing", "missing"), rows)


def _values(feature: Feature) -> str:
    if isinstance(feature, Numeric):
        return "number"
    kind = {"string": "string", "int64": "integer", None: ""}[feature.dtype]
    return kind if isinstance(feature, Categorical) else f"last {feature.max_length} {kind}s"


def _encoding(feature: Feature) -> str:
    if isinstance(feature, Numeric):
        return feature.scale
    table = f"{feature.buckets} buckets" if feature.buckets else "vocabulary"
    return f"as {feature.share}" if feature.share else table


def _when_missing(feature: Feature) -> str:
    if not isinstance(feature, Categorical | Numeric):
        return "empty"
    return f"is {feature.default}" if feature.missing == "default" else feature.missing


def _files(manifest: Manifest) -> Table:
    rows = [(name, f"{entry.size:,}", f"{entry.sha256[:16]}…") for name, entry in manifest.files.items()]
    return _table("files", ("file", "bytes", "SHA-256"), rows)


def _table(title: str, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=any(header), box=box.SIMPLE, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
