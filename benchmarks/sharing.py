"""`python -m benchmarks.sharing`: the user computed once, against the same network exported flat.

One user and N candidates go through two graphs of one network: the bundle's, which takes the user's features once, and
`export_graph(..., flat=True)`, in which every candidate brings the user's features along. Strings in, probabilities
out, as the service runs it: one thread, no spinning. The repetitions of all graphs are interleaved, and the medians
compared. Times are those of the one thread on the processor, which what else runs on the machine hardly changes; the
ratio by the clock stands beside theirs. The network is initialised, not trained: that does not change its speed.

Knows the exporter, the service's session, and a clock. Does not know HTTP.
"""

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from contract.features import FIRST_ROW, Categorical, Feature, Numeric, Side
from contract.features import Sequence as SequenceFeature
from contract.manifest import ROW_USER
from contract.tasks import CLICK_AND_CONVERSION, outputs
from models.architecture import Options
from models.inputs import Inputs, Lookup, Number
from models.mmoe import MMoEOptions
from models.ple import PLEOptions
from models.ranker import Ranker
from models.separate_towers import SeparateTowersOptions
from models.shared_bottom import SharedBottomOptions
from service.scoring.session import Session
from service.scoring.settings import ScoringSettings
from training.calibration import identity
from training.encoders import Fitted, Table
from training.export import export_graph
from training.transforms import encoded_name

ARCHITECTURES: tuple[tuple[str, Options], ...] = (
    ("shared bottom", SharedBottomOptions(trunk=(256, 128), tower=(64,))),
    ("separate towers (ESMM)", SeparateTowersOptions(tower=(256, 128, 64))),
    ("MMoE", MMoEOptions(experts=6, expert=(128, 64), tower=(32,))),
    ("PLE", PLEOptions(levels=2, private=2, shared=2, expert=(128, 64), tower=(32,))),
)
CANDIDATES = (100, 500, 1000)
DIM, LENGTH, EDGES = 16, 20, tuple(float(x) for x in range(17))
IDS, VALUES = 100_000, 1_000  # vocabulary of user_id and item_id, and of every other feature
TOLERANCE = 1e-6
WARM_UP = 5
NAMES = [output.name for output in outputs(CLICK_AND_CONVERSION)]

Feeds = Mapping[str, NDArray[Any]]
Array = NDArray[Any]


def features(categorical: tuple[int, int] = (23, 17), numeric: tuple[int, int] = (3, 1)) -> tuple[Feature, ...]:
    """So many of the user and of the item, and a sequence. As given, 60 % of the input's width is the user's."""

    def side(name: Side, categorical: int, numeric: int) -> list[Feature]:
        single = [f"{name}_id", *(f"{name}_{i}" for i in range(1, categorical))]
        return [
            *(Categorical(name=x, side=name, dtype="string", dim=DIM) for x in single),
            *(Numeric(name=f"{name}_number_{i}", side=name, scale="piecewise") for i in range(numeric)),
        ]

    recent = SequenceFeature(
        name="recent_items", side="user", dtype="string", dim=DIM, max_length=LENGTH, share="item_id"
    )
    return (*side("user", categorical[0], numeric[0]), recent, *side("item", categorical[1], numeric[1]))


def fitted(chosen: tuple[Feature, ...], ids: int = IDS, values: int = VALUES) -> Fitted:
    """What fitting would have learned: vocabularies, tables and edges."""
    tables: dict[str, Table] = {}
    offset = 0
    for feature in chosen:
        if isinstance(feature, Categorical):
            words = ids if feature.name.endswith("_id") else values
            vocabulary = pa.array([f"{feature.name}:{i:08d}" for i in range(words)])
            tables[feature.name] = Table(offset, FIRST_ROW + words, "string", vocabulary)
            offset += FIRST_ROW + words
    lookups = [
        Lookup(f.name, f.side, f.dim, tables[f.share or f.name].offset, LENGTH if f.kind == "sequence" else None)
        for f in chosen
        if not isinstance(f, Numeric)
    ]
    numbers = [Number(f.name, f.side, f.scale, 1.0, False, edges=EDGES) for f in chosen if isinstance(f, Numeric)]
    return Fitted(chosen, Inputs(tuple(lookups), tuple(numbers), {DIM: offset}), tables, {})


def network(options: Options, fit: Fitted, seed: int = 0) -> Ranker:
    """An initialised network, with tables and (as He et al. 2015 would have them) weights large enough to matter."""
    torch.manual_seed(seed)
    ranker = Ranker(fit.inputs, options, len(CLICK_AND_CONVERSION))
    with torch.no_grad():
        for table in ranker.embeddings.tables.values():
            table.normal_()
        for parameter in ranker.architecture.parameters():
            parameter.mul_(6**0.5)
    return ranker.eval()


def request(fit: Fitted, candidates: int, seed: int = 0) -> dict[str, Array]:
    """One user and some candidates, as the bundle's graph takes them."""
    random = np.random.default_rng(seed)
    feeds: dict[str, Array] = {ROW_USER: np.zeros(candidates, np.int64)}
    for feature in fit.features:
        rows = 1 if feature.side == "user" else candidates
        if isinstance(feature, Numeric):
            feeds[feature.name] = random.uniform(EDGES[0], EDGES[-1], rows).astype(np.float32)
            continue
        words = fit.tables[feature.share or feature.name].vocabulary
        assert words is not None
        shape = (rows, LENGTH) if isinstance(feature, SequenceFeature) else (rows,)
        chosen = words.take(pa.array(random.integers(len(words), size=shape).ravel()))
        feeds[feature.name] = np.array(chosen.to_pylist(), object).reshape(shape)
    return feeds


def flat(feeds: Feeds, fit: Fitted) -> dict[str, Array]:
    """The same request with the user's features repeated for every candidate."""
    row_user = feeds[ROW_USER]
    return {f.name: feeds[f.name][row_user] if f.side == "user" else feeds[f.name] for f in fit.features}


def encoded(feeds: Feeds, fit: Fitted) -> dict[str, Array]:
    """The same request after the lookups: strings as rows of the tables."""
    found = dict(feeds)
    for feature in fit.features:
        if not isinstance(feature, Numeric):
            table = fit.tables[feature.share or feature.name]
            words = found.pop(feature.name)
            rows = np.array([int(word.rpartition(":")[2]) for word in words.ravel()], np.int64)
            found[encoded_name(feature.name)] = table.offset + FIRST_ROW + rows.reshape(words.shape)
    return found


def export(options: Options, fit: Fitted) -> tuple[bytes, bytes]:
    """One network as two models: shared and flat."""
    ranker, calibration = network(options, fit), identity(CLICK_AND_CONVERSION)
    shared, repeated = (export_graph(ranker, fit, CLICK_AND_CONVERSION, calibration, flat=x) for x in (False, True))
    return shared, repeated


def without_lookups(model: bytes, fit: Fitted) -> bytes:
    """The same graph from the tables' rows on."""
    graph = onnx.load_model_from_string(model)
    given = {encoded_name(f.name): f for f in fit.features if not isinstance(f, Numeric)}
    nodes = [node for node in graph.graph.node if node.output[0] not in given]
    raw = {f.name for f in given.values()}
    kept = [entry for entry in graph.graph.input if entry.name not in raw]
    del graph.graph.node[:], graph.graph.input[:]
    graph.graph.node.extend(nodes)
    graph.graph.input.extend(kept)
    for name, feature in given.items():
        shape = [None, None] if isinstance(feature, SequenceFeature) else [None]
        graph.graph.input.append(helper.make_tensor_value_info(name, TensorProto.INT64, shape))
    return bytes(graph.SerializeToString())


@dataclass(frozen=True)
class Time:
    """Median milliseconds of a run: of its thread on the processor, and by the clock."""

    thread: float
    clock: float


def medians(runs: Sequence[tuple[Session, Feeds]], repetitions: int) -> list[Time]:
    """Of each run, their repetitions interleaved."""
    times = np.empty((repetitions, len(runs), 2))
    for repetition in range(-WARM_UP, repetitions):
        for i, (session, feeds) in enumerate(runs):
            clock, thread = time.perf_counter(), time.thread_time()
            session.run(NAMES, feeds)
            if repetition >= 0:
                times[repetition, i] = time.thread_time() - thread, time.perf_counter() - clock
    return [Time(*(1e3 * float(x) for x in pair)) for pair in np.median(times, axis=0)]


@dataclass(frozen=True)
class Graphs:
    """One network as four sessions: shared and flat, each with its lookups and without."""

    fit: Fitted
    shared: Session
    flat: Session
    shared_core: Session
    flat_core: Session

    @classmethod
    def of(cls, shared: bytes, flat: bytes, fit: Fitted) -> "Graphs":
        """Load both models, whole and from the lookups on."""
        settings = ScoringSettings(intra_op_threads=1, max_words=0)
        models = (shared, flat, without_lookups(shared, fit), without_lookups(flat, fit))
        return cls(fit, *(Session(model, settings) for model in models))

    def runs(self, candidates: int) -> list[tuple[Session, Feeds]]:
        """One request, as each of the four takes it."""
        feeds = request(self.fit, candidates)
        repeated = flat(feeds, self.fit)
        return [
            (self.shared, feeds),
            (self.flat, repeated),
            (self.shared_core, encoded(feeds, self.fit)),
            (self.flat_core, encoded(repeated, self.fit)),
        ]

    def difference(self, candidates: int) -> float:
        """Largest difference between the scores of the four."""
        scores = [np.array(session.run(NAMES, feeds), np.float64) for session, feeds in self.runs(candidates)]
        return max(float(np.abs(other - scores[0]).max()) for other in scores[1:])

    def rows(self, name: str, candidates: Sequence[int], repetitions: int) -> list[tuple[str, ...]]:
        """A line of the table for each number of candidates. Raises: SystemExit if the graphs disagree."""
        worst = [self.difference(count) for count in candidates]
        if not max(worst) <= TOLERANCE:
            raise SystemExit(f"{name}: the graphs differ by {max(worst):.1e}, more than {TOLERANCE:.0e}")
        times = medians([run for count in candidates for run in self.runs(count)], repetitions)
        return [
            (name, str(count), *_figures(*times[4 * i : 4 * i + 4]), f"{worst[i]:.0e}")
            for i, count in enumerate(candidates)
        ]


def _figures(once: Time, flat: Time, core: Time, flat_core: Time) -> tuple[str, ...]:
    """The columns of a line between the number of candidates and the difference."""
    return (
        f"{flat.thread:.2f}", f"{once.thread:.2f}", f"{flat.thread / once.thread:.2f}x",
        f"{flat.clock / once.clock:.2f}x",
        f"{flat_core.thread:.2f}", f"{core.thread:.2f}", f"{flat_core.thread / core.thread:.2f}x",
        f"{1 - flat_core.thread / flat.thread:.0%}", f"{1 - core.thread / once.thread:.0%}",
    )  # fmt: skip


HEADER = (
    "model", "candidates", "flat, ms", "user once, ms", "faster", "faster by the clock",
    "flat without lookups, ms", "user once without lookups, ms", "faster",
    "lookups, of flat", "lookups, of user once", "largest difference",
)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Parse, export, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sharing", description=__doc__)
    names = [name for name, _ in ARCHITECTURES]
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--candidates", nargs="+", type=int, default=list(CANDIDATES))
    parser.add_argument("--repetitions", type=int, default=200)
    options = parser.parse_args(argv)
    for chatty in ("torch.onnx", "onnxscript"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    fit = fitted(features())
    user, item, *_ = network(ARCHITECTURES[0][1], fit).embeddings.widths
    print(f"input {user + item} wide, of which {user / (user + item):.0%} the user's\n")
    for line in (HEADER, ("---",) + ("---:",) * (len(HEADER) - 1)):
        print(f"| {' | '.join(line)} |")
    for name, chosen in ARCHITECTURES:
        if name in options.models:
            graphs = Graphs.of(*export(chosen, fit), fit)
            for line in graphs.rows(name, options.candidates, options.repetitions):
                print(f"| {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()
