"""`python -m benchmarks.arithmetic --bundle BUNDLE`: the graph of a bundle in other arithmetics, side by side.

The same requests (one user, candidates from the golden rows) on one thread: as exported; optimised by onnxruntime
beforehand; products in 8 bits, weights quantised per tensor or per column and inputs in each run; products in half
precision. Of each, the median time of a run, and how far the scores of the golden rows move: the largest
difference, the mean score in relation to that in float32 (PCOC moves by this factor), and the share of pairs of rows
that change order (AUC cannot move by more). Decision 9 tells what was found.

Knows onnxruntime's quantisation, and a clock. Does not know labels.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from service.scoring.lookups import without_lookups
from service.scoring.scorer import Feeds, Scorer
from service.scoring.session import CPU, session_options
from service.scoring.settings import ScoringSettings

import onnxruntime  # isort: skip  # after service.scoring, which turns its telemetry off
from onnxruntime.quantization import QuantType, quantize_dynamic  # isort: skip

PRODUCTS = ("Gemm", "MatMul")
CANDIDATES = (1, 100, 500)
WARM_UP = 20
HEADER = ("arithmetic", *(f"{n} candidates, us" for n in CANDIDATES), "largest difference", "mean score", "other order")


def load(model: bytes, optimised: Path | None = None, *, fused: bool = True) -> Any:
    """A session on one thread; what onnxruntime makes of the model can be kept."""
    options = session_options(ScoringSettings())
    if optimised:
        options.optimized_model_filepath = str(optimised)
    if not fused:  # what is fused cannot be quantised any more
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(model, options, providers=[CPU])


def variants(model: bytes) -> dict[str, bytes]:
    """The model by the name of its arithmetic, as exported first."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load(model, folder / "offline.onnx")
        load(model, folder / "plain.onnx", fused=False)
        found = {"float32": model, "float32, optimised beforehand": (folder / "offline.onnx").read_bytes()}
        for title, per_channel in (("int8 per tensor", False), ("int8 per column", True)):
            quantize_dynamic(
                folder / "plain.onnx",
                folder / "int8.onnx",
                op_types_to_quantize=list(PRODUCTS),
                per_channel=per_channel,
                weight_type=QuantType.QInt8,
            )
            found[title] = (folder / "int8.onnx").read_bytes()
        found["float16"] = halved((folder / "plain.onnx").read_bytes())
    return found


def halved(model: bytes) -> bytes:
    """The model with its products in half precision, between casts."""
    parsed = onnx.load_model_from_string(model)
    graph = parsed.graph
    weights = {entry.name: entry for entry in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    casts: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in PRODUCTS:
            nodes.append(node)
            continue
        for k, name in enumerate(node.input):
            half = f"{name}.half"
            if name not in casts and name in weights:
                graph.initializer.append(
                    numpy_helper.from_array(numpy_helper.to_array(weights[name]).astype(np.float16), half)
                )
            elif name not in casts:
                nodes.append(helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16))
            casts[name] = node.input[k] = half
        (whole,) = node.output
        node.output[0] = f"{whole}.product"
        nodes += [node, helper.make_node("Cast", [node.output[0]], [whole], to=TensorProto.FLOAT)]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return bytes(parsed.SerializeToString())


def request(scorer: Scorer, candidates: int) -> Feeds:
    """The first golden user with candidates of the golden rows, again and again."""
    rows = scorer.golden.rows
    user = {name: column[:1] for name, column in rows.user.items()}
    chosen = np.arange(candidates) % len(rows.row_user)
    return scorer.read(user, {name: [column[i] for i in chosen] for name, column in rows.candidates.items()})


def medians(sessions: Sequence[Any], feeds: Feeds, rounds: int) -> list[float]:
    """Median seconds of a run of each session, their runs interleaved."""
    times = np.empty((rounds + WARM_UP, len(sessions)))
    for row in times:
        for k, session in enumerate(sessions):
            started = time.perf_counter()
            session.run(None, feeds)
            row[k] = time.perf_counter() - started
    return [float(seconds) for seconds in np.median(times[WARM_UP:], axis=0)]


@dataclass(frozen=True)
class Shift:
    """How far scores [outputs, rows] are from others: see the module."""

    largest: float
    mean: float
    reordered: float

    @classmethod
    def of(cls, scores: NDArray[np.float32], others: NDArray[np.float32]) -> "Shift":
        """From `others` to `scores`; the worst of the outputs each."""
        means = scores.mean(axis=1, dtype=np.float64) / others.mean(axis=1, dtype=np.float64)
        before, after = (np.sign(x[:, :, None] - x[:, None, :]) for x in (others, scores))
        pairs = (before > 0).sum(axis=(1, 2))
        swapped = ((before > 0) & (after <= 0)).sum(axis=(1, 2)) / np.maximum(pairs, 1)
        return cls(float(np.abs(scores - others).max()), float(means[np.abs(means - 1).argmax()]), float(swapped.max()))


def table(bundle: Path, rounds: int) -> list[tuple[str, ...]]:
    """A line for each arithmetic."""
    scorer = Scorer.load(bundle)
    model, _ = without_lookups((bundle / "model.onnx").read_bytes(), ScoringSettings().max_words)
    sessions = {name: load(variant) for name, variant in variants(model).items()}
    rows = scorer.golden.rows
    golden = scorer.read(rows.user, rows.candidates, np.array(rows.row_user, dtype=np.int64))
    scores = [np.stack(session.run(None, golden)) for session in sessions.values()]
    times = [medians(list(sessions.values()), request(scorer, count), rounds) for count in CANDIDATES]
    lines = []
    for k, name in enumerate(sessions):
        shift = Shift.of(scores[k], scores[0])
        found = [f"{1e6 * seconds[k]:.0f} ({seconds[k] / seconds[0]:.2f})" for seconds in times]
        lines.append((name, *found, f"{shift.largest:.0e}", f"{shift.mean:.4f}", f"{shift.reordered:.2%}"))
    return lines


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arithmetic", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=500)
    options = parser.parse_args(argv)
    logging.getLogger().setLevel(logging.ERROR)  # the quantisation warns of what it is not asked to do
    print(f"onnxruntime {onnxruntime.__version__}, one thread; in brackets the time in relation to float32\n")
    for line in (HEADER, ("---",) + ("---:",) * (len(HEADER) - 1), *table(options.bundle, options.rounds)):
        print(f"| {' | '.join(line)} |")


if __name__ == "__main__":
    main()
