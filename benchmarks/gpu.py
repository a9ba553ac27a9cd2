"""`python -m benchmarks.gpu`: a bundle's session on a GPU beside the CPU: the same scores, and how long a run takes.

For each number of candidates of one user: the session as the service runs it on the CPU and on the GPU, always with as
many candidates and with ever other numbers of up to a tenth less (what a graph costs that sees new shapes, and so what
padding to a few sizes would gain), and on the GPU with inputs and outputs bound to its memory. Where there is no GPU it
says so, and measures nothing.

Knows sessions and arrays. Does not know servers.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.environment import ROOT
from contract.bundle import MODEL, read_bundle
from service.scoring.lookups import without_lookups
from service.scoring.scorer import Feeds, Scorer
from service.scoring.session import CPU, GPU, session_options
from service.scoring.settings import ScoringSettings

BUNDLE = ROOT / "demo" / "bundles" / "ple"
CANDIDATES = (1, 100, 500, 1000, 4000, 8000)
TOLERANCE = 1e-5
WARM = 5
Run = Callable[[Feeds], Sequence[Any]]


@dataclass(frozen=True)
class Line:
    """Of one number of candidates: milliseconds of a run, and the largest difference of any score from the CPU's."""

    candidates: int
    cpu_ms: float
    same_ms: float
    changing_ms: float
    bound_ms: float | None
    difference: float


def feeds_of(scorer: Scorer, candidates: int) -> Feeds:
    """The arrays of the first golden user with so many golden candidates."""
    rows = scorer.golden.rows
    items = {name: list(islice(cycle(values), candidates)) for name, values in rows.candidates.items()}
    return scorer.read({name: values[:1] for name, values in rows.user.items()}, items)


def bound(bundle: Path, provider: str, outputs: Sequence[str], settings: ScoringSettings) -> Run | None:
    """The same graph with its inputs and outputs bound to the memory of the provider; None where it takes strings."""
    model, _ = without_lookups(read_bundle(bundle).files[MODEL], settings.max_words)
    session = onnxruntime.InferenceSession(
        bytes(model), session_options(settings), providers=list(dict.fromkeys((provider, CPU)))
    )
    device = "cuda" if provider == GPU else "cpu"
    taken = {port.name for port in session.get_inputs()}
    if any(port.type == "tensor(string)" for port in session.get_inputs()):  # onnxruntime binds none
        return None

    def run(feeds: Feeds) -> Sequence[Any]:
        binding = session.io_binding()
        for name in taken:
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(feeds[name], device, 0))
        for name in outputs:
            binding.bind_output(name, device)
        session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())

    return run


def milliseconds(run: Run, several: Sequence[Feeds], seconds: float) -> float:
    """The median of as many runs as there is time for, of these feeds by turns, after some to get warm."""
    took: list[float] = []
    end = time.perf_counter() + seconds
    for number, feeds in enumerate(cycle(several)):
        started = time.perf_counter()
        run(feeds)
        now = time.perf_counter()
        if number >= WARM:
            took.append(now - started)
        if now > end and took:
            return 1000 * median(took)
    raise ValueError("no feeds")


def measure(bundle: Path, provider: str, candidates: Sequence[int], seconds: float) -> list[Line]:
    """Raises: SystemExit where scores are not those of the CPU."""
    kind: Any = "cuda" if provider == GPU else "cpu"
    settings = ScoringSettings(provider=kind)
    reference, scorer = Scorer.load(bundle), Scorer.load(bundle, settings)
    outputs = [output.name for output in scorer.manifest.outputs]
    with_binding = bound(bundle, provider, outputs, settings)
    found = []
    for count in candidates:
        feeds = feeds_of(scorer, count)
        expected = np.array(reference.session.run(outputs, feeds))
        answers = [run(feeds) for run in (partial(scorer.session.run, outputs), with_binding) if run is not None]
        difference = max(float(np.abs(np.array(answer) - expected).max()) for answer in answers)
        if not difference <= TOLERANCE:
            raise SystemExit(f"{count} candidates: scores differ by {difference:.1e}")
        fewer = [feeds_of(scorer, rows) for rows in range(max(1, count - count // 10), count + 1, max(1, count // 100))]
        found.append(
            Line(
                count,
                milliseconds(partial(reference.session.run, outputs), [feeds], seconds),
                milliseconds(partial(scorer.session.run, outputs), [feeds], seconds),
                milliseconds(partial(scorer.session.run, outputs), fewer, seconds),
                None if with_binding is None else milliseconds(with_binding, [feeds], seconds),
                difference,
            )
        )
    return found


def table(lines: Sequence[Line]) -> str:
    """In Markdown."""
    names = (
        "candidates",
        "CPU, ms",
        "GPU, ms",
        "GPU, other sizes, ms",
        "GPU, bound, ms",
        "times as fast",
        "difference",
    )
    rows = [
        f"| {line.candidates} | {line.cpu_ms:.2f} | {line.same_ms:.2f} | {line.changing_ms:.2f} "
        f"| {'' if line.bound_ms is None else f'{line.bound_ms:.2f}'} | {line.cpu_ms / line.same_ms:.1f} "
        f"| {line.difference:.0e} |"
        for line in lines
    ]
    return "\n".join([f"| {' | '.join(names)} |", "| ---: " * len(names) + "|", *rows])


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--candidates", nargs="+", type=int, default=list(CANDIDATES))
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    options = parser.parse_args(argv)
    available = onnxruntime.get_available_providers()
    if GPU not in available:
        print(f"no GPU: this onnxruntime runs on {', '.join(available)}; nothing was measured", file=sys.stderr)
        return
    print(table(measure(options.bundle, GPU, options.candidates, options.seconds)))


if __name__ == "__main__":
    main()
