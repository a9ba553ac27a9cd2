"""The one scorer: a verified bundle, and raw columns in, probabilities out.

Knows bundles, columns and the session. Does not know HTTP, JSON, or where columns come from.
"""

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from contract.bundle import GOLDEN, MODEL, Bundle, Golden, Input, Manifest, read_bundle
from contract.errors import BundleCorrupt, GoldenMismatch, LengthMismatch, RequestInvalid, ScoreInvalid, ValueInvalid
from service.scoring.columns import Columns, Table, count_rows, raise_all
from service.scoring.plain import are_probabilities
from service.scoring.request import Plain, Requests
from service.scoring.session import Session
from service.scoring.settings import ScoringSettings

Feeds = Mapping[str, NDArray[Any]]  # an array for each input of the graph, and the user of each candidate
Scores = dict[str, NDArray[np.float32]]
Tables = tuple[Table, Table]  # users and candidates

TIMED_ROWS = 256


class Observer(Protocol):
    """Told of what a scorer does, from whatever thread it is done in."""

    def read(self, tables: Callable[[], Tables], counts: tuple[int, int], feeds: Feeds) -> None:
        """Users and candidates, which `tables` answers, have been read, so many of each, into these arrays."""

    def ran(self, rows: int, seconds: float, scores: Scores) -> None:
        """The graph has run."""

    def failed(self) -> None:
        """The graph could not be run, or answered something that is not a probability."""


REMEDY = "export the bundle again with `fullfunnel train`"


class Scorer:
    """Scores candidates for users with one bundle. Made by `of` or `load`; safe to call from several threads."""

    def __init__(self, bundle: Bundle, settings: ScoringSettings) -> None:
        self.manifest: Manifest = bundle.manifest
        self.digest: str = bundle.digest
        self.golden: Golden = bundle.golden
        self.row_ms = 0.0  # what one more candidate takes, measured by `of`
        self.session = Session(bundle.files[MODEL], settings)
        self._through: Callable[[Feeds], Scores] | None = None  # in place of `run`
        self.observer: Observer | None = None  # of whatever this scorer does from now on
        row_user = Input(name=self.manifest.row_user, dtype="int64", side="item", shape=("candidates",))
        self.inputs = {entry.name: entry for entry in (*self.manifest.inputs, row_user)}
        self.outputs = tuple(output.name for output in self.manifest.outputs)
        self._takes_row_user = self.manifest.row_user in self.session.inputs
        self._check_ports()
        self.users = Columns(self.manifest, "user", settings, self.session.words)
        self.candidates = Columns(self.manifest, "item", settings, self.session.words)
        self.requests = Requests.of(self.users, self.candidates, self.outputs, self.session.words, settings)

    @classmethod
    def load(cls, path: Path, settings: ScoringSettings | None = None) -> Self:
        """The scorer of the bundle at `path`. Raises: BundleInvalid, SettingInvalid."""
        return cls.of(read_bundle(path), settings)

    @classmethod
    def of(cls, bundle: Bundle, settings: ScoringSettings | None = None) -> Self:
        """Verify and warm a bundle that was read: what is returned has scored its golden rows rightly.

        Raises: BundleInvalid, SettingInvalid.
        """
        scorer = cls(bundle, settings or ScoringSettings())
        scorer.check_golden()
        few, many = scorer._one_user_ms(1), scorer._one_user_ms(TIMED_ROWS)
        scorer.row_ms = max(0.0, many - few) / (TIMED_ROWS - 1)
        return scorer

    def score(self, users: Table, candidates: Table, row_user: NDArray[np.int64] | None = None) -> Scores:
        """Probabilities [N] by output name, in the order of the manifest.

        users: feature name -> one value for each of U users. candidates: feature name -> one value for each of N
        candidates. row_user: for each candidate the index of its user; without it there is one user. See
        `service.scoring.columns` for what a column may be. N is 1 where there is neither a column nor row_user.
        Raises: RequestInvalid, ScoreInvalid.
        """
        return self.scores(self.read(users, candidates, row_user))

    def scores(self, feeds: Feeds) -> Scores:
        """The scores for what `read` made, by `run` or the way there is in its place. Raises: ScoreInvalid."""
        return self.run(feeds) if self._through is None else self._through(feeds)

    def run(self, feeds: Feeds) -> Scores:
        """The scores for what `read` made. Raises: ScoreInvalid."""
        rows = len(feeds[self.manifest.row_user])
        if rows == 0:
            return {name: np.empty(0, dtype=np.float32) for name in self.outputs}
        if not self._takes_row_user:
            feeds = {name: array for name, array in feeds.items() if name != self.manifest.row_user}
        try:
            began = time.perf_counter()
            scores = self.session.run(self.outputs, feeds)
            seconds = time.perf_counter() - began
            if any(values.shape != (rows,) for values in scores) or not are_probabilities(scores):
                raise ScoreInvalid("the model answered something that is not a probability")
        except ScoreInvalid:
            if self.observer is not None:
                self.observer.failed()
            raise
        found = dict(zip(self.outputs, scores, strict=True))
        if self.observer is not None:
            self.observer.ran(rows, seconds, found)
        return found

    def through(self, run: Callable[[Feeds], Scores]) -> Self:
        """This scorer, with another way from what `read` made to the scores."""
        other = copy.copy(self)
        other._through = run
        return other

    def unwatched(self) -> Self:
        """This scorer, whose runs nobody is told of."""
        other = copy.copy(self)
        other.observer = None
        return other

    def padding(self, name: str) -> Any:
        """What the graph takes for a step that is not there, in a sequence of this name."""
        return (self.users if name in self.users.features else self.candidates).padding(name)

    def read(self, users: Table, candidates: Table, row_user: NDArray[np.int64] | None = None) -> Feeds:
        """What `score` gives the graph: an array for each of its inputs, and `row_user`.

        Raises: RequestInvalid.
        """
        faults = self.unknown(users, candidates)
        rows = count_rows(candidates, "item", None if row_user is None else len(row_user))
        people = count_rows(users, "user")
        if row_user is None:
            row_user = np.zeros(1 if rows is None else rows, dtype=np.int64)
            people = 1 if people is None else people
        elif people is None:
            people = int(row_user.max(initial=0)) + 1
        _check_row_user(row_user, people)
        feeds = self.users.arrays(users, people, faults)
        feeds |= self.candidates.arrays(candidates, len(row_user), faults)
        raise_all(faults)
        feeds[self.manifest.row_user] = row_user
        if self.observer is not None:
            self.observer.read(lambda: (users, candidates), (people or 0, len(row_user)), feeds)
        return feeds

    def read_plain(self, requests: list[Plain], tables: Callable[[], Tables]) -> Feeds:
        """The same for requests that `self.requests` has read; `tables` are their users and candidates as columns.

        Raises: RequestInvalid.
        """
        found = self.requests.arrays(requests) if self.requests is not None else None
        if found is None:
            return self.read(*tables(), np.repeat(np.arange(len(requests)), [request.count for request in requests]))
        feeds, row_user = found
        feeds[self.manifest.row_user] = row_user
        if self.observer is not None:
            self.observer.read(tables, (len(requests), len(row_user)), feeds)
        return feeds

    def unknown(self, users: Iterable[str], candidates: Iterable[str]) -> list[RequestInvalid]:
        """An UnknownFeature for each name the model does not take on that side."""
        return self.users.unknown(users) + self.candidates.unknown(candidates)

    def check_golden(self) -> None:
        """Score the golden rows again.

        Raises: GoldenMismatch, BundleCorrupt.
        """
        rows, expected = self.golden.rows, self.golden.scores
        try:
            found = self.score(rows.user, rows.candidates, np.array(rows.row_user, dtype=np.int64))
        except (RequestInvalid, OverflowError) as error:
            raise BundleCorrupt(f"rows that cannot be scored ({error})", place=GOLDEN, remedy=REMEDY) from None
        except ScoreInvalid as error:
            raise GoldenMismatch(error.fact, place=GOLDEN, remedy=REMEDY) from None
        if set(expected) != set(found) or any(len(expected[name]) != len(found[name]) for name in found):
            raise BundleCorrupt("scores that do not fit the outputs and rows", place=GOLDEN, remedy=REMEDY)
        for name, values in found.items():
            difference = float(np.abs(values - np.array(expected[name])).max(initial=0))
            if difference > self.golden.tolerance:
                raise GoldenMismatch(
                    f"{name} differs by {difference:.1e}, more than {self.golden.tolerance:.0e}",
                    place=GOLDEN,
                    remedy=REMEDY,
                )

    def _one_user_ms(self, rows: int) -> float:
        """How long a request of the first golden user takes with so many candidates; the best of ten."""
        users = {name: values[:1] for name, values in self.golden.rows.user.items()}
        items = {name: list(islice(cycle(values), rows)) for name, values in self.golden.rows.candidates.items()}
        took = []
        for _ in range(10):
            started = time.perf_counter()
            self.score(users, items, np.zeros(rows, dtype=np.int64))
            took.append(1000 * (time.perf_counter() - started))
        return min(took)

    def _check_ports(self) -> None:
        """The graph takes and answers what the manifest says, with every axis free."""
        inputs = {entry.name: (entry.dtype, len(entry.shape)) for entry in self.manifest.inputs}
        if self._takes_row_user or any(entry.side == "user" for entry in self.manifest.inputs):
            inputs[self.manifest.row_user] = ("int64", 1)
        outputs = dict.fromkeys(self.outputs, ("float32", 1))
        for kind, said, ports in (("input", inputs, self.session.inputs), ("output", outputs, self.session.outputs)):
            found = {name: (port.dtype, port.rank) for name, port in ports.items()}
            for name in sorted({*said, *found}):
                if said.get(name) != found.get(name):
                    raise BundleCorrupt(f"{kind} {name!r} is not what the manifest says", place=MODEL, remedy=REMEDY)
        if {entry.name for entry in self.manifest.inputs} != {feature.name for feature in self.manifest.features}:
            raise BundleCorrupt("features and inputs differ", place="manifest.json", remedy=REMEDY)


def _check_row_user(row_user: NDArray[np.int64], people: int) -> None:
    if people < 1 and len(row_user):
        raise LengthMismatch("no user to score for", place="users")
    if len(row_user) and (int(row_user.min()) < 0 or int(row_user.max()) >= people):
        raise ValueInvalid(f"must lie between 0 and {people - 1}", place="row_user")
