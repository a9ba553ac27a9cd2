"""The tensors of one request through one run of the scorer.

Knows the model's inputs and the limits: names, datatypes, ranks and sizes are checked before anything is decoded. Does
not know JSON, HTTP or gRPC. What is not sent is missing in all rows, as in /v1; one user needs no `row_user`.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.bundle import Input
from contract.errors import (
    FeatureMissing,
    LengthMismatch,
    RequestInvalid,
    TooManyCandidates,
    TooManyRequests,
    UnknownFeature,
    UnknownModel,
    ValueInvalid,
)
from service.api.settings import Limits
from service.api.v2.tensors import ANNOUNCED, DATATYPES, Tensor, column
from service.scoring.batching import merged
from service.scoring.columns import Table, shown
from service.scoring.request import Plain
from service.scoring.scorer import Feeds, Scorer, Scores

INTEGERS = frozenset({int, np.int64})
WHOLE = frozenset({int})


@dataclass(slots=True)  # frozen, it would take three times as long to make
class Inference:
    """A request: `count` candidates of `users` users. `binary` names the outputs to be answered as raw bytes.

    `plain` is there where compiled code has read it; then `tensors` reads it once more.
    """

    id: str
    count: int
    users: int
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    binary: frozenset[str] = field(default=frozenset())
    plain: Plain | None = None
    again: "Callable[[], Inference] | None" = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The inputs by name."""
        return self.inputs if self.again is None else self.again().inputs


def check_model(scorer: Scorer, name: str, version: str) -> None:
    """Raises: UnknownModel, unless `name` is served, in this `version` ("": in any)."""
    manifest = scorer.manifest
    if name != manifest.name:
        raise UnknownModel("no such model is served", place=f"model {shown(name)}", remedy=f"ask for {manifest.name}")
    if version not in ("", manifest.version):
        raise UnknownModel(
            "this version is not served", place=f"version {shown(version)}", remedy=f"ask for {manifest.version}"
        )


def read_inference(
    scorer: Scorer,
    limits: Limits,
    id: str,
    tensors: Iterable[tuple[str, Tensor]],
    requested: Iterable[tuple[str, bool]],
) -> Inference:
    """Check what is asked. `requested`: outputs and whether each is wanted as raw bytes; none means all, not raw.

    Raises: RequestInvalid.
    """
    check_id(limits, id)
    known, inputs = scorer.inputs, dict[str, Tensor]()
    for name, tensor in tensors:
        if name in inputs:
            raise ValueInvalid("is sent twice", place=f"inputs.{name}", remedy="send each input once")
        if name not in known:
            raise _unknown("input", name, known)
        _check_tensor(known[name], tensor, limits)
        inputs[name] = tensor
    users, count = _sizes(scorer, known, inputs)
    most = limits.max_candidates if users <= 1 else limits.max_rows
    if count > most:
        raise TooManyCandidates(f"more than {most} candidates", place="inputs", remedy="send them in several requests")
    outputs, binary = outputs_of(scorer.outputs, requested)
    return Inference(id, count, users, inputs, outputs, binary)


def infer(scorer: Scorer, asked: Inference) -> Scores:
    """The outputs that are asked for, [N] each.

    Raises: RequestInvalid, ScoreInvalid.
    """
    return of_outputs(asked, scorer.scores(arrays_of(scorer, [asked])))


def arrays_of(scorer: Scorer, several: Sequence[Inference]) -> Feeds:
    """What one run takes that scores all of these requests.

    Raises: RequestInvalid where one of them is at fault.
    """
    plain = [asked.plain for asked in several if asked.plain is not None]
    if len(plain) == len(several):
        return scorer.read_plain(plain, lambda: _columns(scorer, several))
    tables = [_tables(scorer, asked) for asked in several]
    if len(tables) == 1:
        return scorer.read(*tables[0])
    users, candidates = _joined([table[0] for table in tables]), _joined([table[1] for table in tables])
    if users is None or candidates is None:
        return merged(scorer, [scorer.read(*table) for table in tables])
    first = np.cumsum([0, *(asked.users for asked in several)])
    row_user = np.concatenate([table[2] + n for table, n in zip(tables, first, strict=False)])
    return scorer.read(users, candidates, row_user)


def of_outputs(asked: Inference, scores: Scores) -> Scores:
    """The scores of the outputs that are asked for, in that order."""
    return {name: scores[name] for name in asked.outputs}


def check_id(limits: Limits, id: str) -> None:
    """Raises: ValueInvalid, where it is too long."""
    if len(id) > limits.max_string_bytes:
        raise ValueInvalid(f"is longer than {limits.max_string_bytes} characters", place="id")


def _columns(scorer: Scorer, several: Sequence[Inference]) -> tuple[Table, Table]:
    """Users and candidates of all requests; what one does not send is missing in its rows."""
    tables = [_tables(scorer, asked) for asked in several]
    users = [(table[0], asked.users) for table, asked in zip(tables, several, strict=True)]
    return _stacked(users), _stacked([(table[1], asked.count) for table, asked in zip(tables, several, strict=True)])


def _stacked(tables: Sequence[tuple[Table, int]]) -> Table:
    names = dict.fromkeys(chain.from_iterable(table for table, _ in tables))
    return {name: list(chain.from_iterable(_values(table.get(name), rows) for table, rows in tables)) for name in names}


def _values(column: Any, rows: int) -> list[Any]:
    if isinstance(column, np.ndarray):
        return [None if value != value else value for value in column.tolist()]
    return [None] * rows if column is None else column


def _joined(tables: Sequence[Table]) -> Table | None:
    """The columns of several requests one after the other; None where they are not alike."""
    if any(table.keys() != tables[0].keys() for table in tables):
        return None
    found: dict[str, Any] = {}
    for name in tables[0]:
        columns = [table[name] for table in tables]
        kinds = {getattr(values, "dtype", None) for values in columns}
        if len(kinds) > 1:
            return None
        found[name] = list(chain.from_iterable(columns)) if None in kinds else np.concatenate(columns)
    return found


def _tables(scorer: Scorer, asked: Inference) -> tuple[Table, Table, NDArray[np.int64]]:
    row_user_name = scorer.manifest.row_user
    columns = {name: column(tensor, f"inputs.{name}") for name, tensor in asked.tensors.items()}
    row_user = np.zeros(asked.count, dtype=np.int64)
    if row_user_name in columns:
        row_user = _row_user(columns.pop(row_user_name), asked, f"inputs.{row_user_name}")
    users = {name: columns.pop(name) for name in scorer.users.features if name in columns}
    return users, columns, row_user


def _check_tensor(entry: Input, tensor: Tensor, limits: Limits) -> None:
    axes, place = tensor.shape, f"inputs.{entry.name}"
    if tensor.datatype not in DATATYPES or DATATYPES[tensor.datatype][1] != entry.dtype:
        announced = ANNOUNCED[entry.dtype]
        raise ValueInvalid(
            f"its datatype cannot be taken as {announced}", place=f"{place}.datatype", remedy=f"send {announced}"
        )
    if len(axes) != len(entry.shape):
        fact = f"has {len(axes)} axes where there must be {len(entry.shape)}"
        raise ValueInvalid(fact, place=f"{place}.shape", remedy=f"send the shape [{', '.join(entry.shape)}]")
    if set(map(type, axes)) != WHOLE or min(axes) < 0:
        fact = "must hold whole numbers from 0 on"
        raise ValueInvalid(fact, place=f"{place}.shape", remedy=f"send [{', '.join(entry.shape)}]")
    rows, remedy = axes[0], "send them in several requests"
    if entry.side == "user" and rows > limits.max_requests:
        raise TooManyRequests(f"more than {limits.max_requests} users", place=place, remedy=remedy)
    if rows > limits.max_rows and rows > limits.max_candidates:
        raise TooManyCandidates(f"more than {limits.max_rows} candidates", place=place, remedy=remedy)


def _sizes(scorer: Scorer, known: dict[str, Input], inputs: dict[str, Tensor]) -> tuple[int, int]:
    """How many users and candidates there are: what the first tensor of each side says, and all others have to."""
    found: dict[str, int] = {}
    for name, tensor in inputs.items():
        rows, side = tensor.shape[0], known[name].side
        if found.setdefault(side, rows) != rows:
            raise LengthMismatch(
                f"has {rows} rows where another input has {found[side]}",
                place=f"inputs.{name}",
                remedy="give all inputs of users, and all of candidates, equally many rows",
            )
    users = found.get("user", 1)
    if "item" not in found and scorer.candidates.features:
        raise FeatureMissing("no input of the candidates is sent", place="inputs", remedy="send at least one")
    if users != 1 and scorer.manifest.row_user not in inputs:
        raise FeatureMissing(
            f"must be given, because there are {users} users",
            place=f"inputs.{scorer.manifest.row_user}",
            remedy="send for each candidate the index of its user",
        )
    return users, found.get("item", 1)


def outputs_of(names: tuple[str, ...], requested: Iterable[tuple[str, bool]]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Of the model's outputs those that are asked for, all of them where none is named; and those wanted as raw bytes.

    Raises: RequestInvalid.
    """
    wanted: dict[str, bool] = {}
    for name, binary in requested:
        if name not in names:
            raise _unknown("output", name, names)
        if name in wanted:
            raise ValueInvalid("is asked for twice", place=f"outputs.{name}", remedy="ask for each output once")
        wanted[name] = binary
    return tuple(wanted) or names, frozenset(name for name in wanted if wanted[name])


def _row_user(values: Any, asked: Inference, place: str) -> NDArray[np.int64]:
    """The user of each candidate. Its range is checked here, because the scorer takes it for the number of users."""
    if not isinstance(values, np.ndarray) and not set(map(type, values)) <= INTEGERS:
        raise ValueInvalid("must hold whole numbers", place=place)
    try:
        row_user = np.asarray(values)
        within = not len(row_user) or (int(row_user.min()) >= 0 and int(row_user.max()) < asked.users)
    except OverflowError:
        within = False
    if not within:
        raise ValueInvalid(f"must lie between 0 and {asked.users - 1}", place=place)
    return row_user.astype(np.int64, copy=False)


def _unknown(kind: str, name: str, known: Iterable[str]) -> RequestInvalid:
    near = difflib.get_close_matches(name[:128], known, n=1)
    remedy = f"did you mean {near[0]!r}" if near else "ask for the model's metadata, which lists them"
    return UnknownFeature(f"the model has no such {kind}", place=f"{kind}s.{shown(name)}", remedy=remedy)
