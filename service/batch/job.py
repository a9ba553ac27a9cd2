"""A batch job as plain data: what to score, where to, and how it is cut into shards that any process can score.

Knows no files. Everything here can be sent to another process or machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.batch.formats.codec import Block, Wanted

ALL = "*"


@dataclass(frozen=True)
class Job:
    """Score the rows of `input` with the bundle at `bundle` into `output`.

    `keep` are the columns to have beside the scores, (ALL,) for every one. Formats are told by endings where they are
    not given. More than `max_bad` rows that cannot be scored stop the job.
    """

    bundle: str
    input: str
    output: str
    keep: tuple[str, ...] = ()
    input_format: str | None = None
    output_format: str | None = None
    max_bad: int = 0


@dataclass(frozen=True)
class File:
    """One file of the input. `stamp` changes when the file does; `partitions` are what its folders' names say."""

    path: str
    size: int
    stamp: str
    partitions: Mapping[str, str | None]


@dataclass(frozen=True)
class Shard:
    """Rows of one file that become one part: `rows` of them from `blocks`, after the first `skip`.

    `first_row` is the place in the file of the first one.
    """

    index: int
    file: File
    blocks: tuple[Block, ...]
    first_row: int
    skip: int
    rows: int


@dataclass(frozen=True)
class Plan:
    """All that scoring a shard needs to know. `schema` is that of the output, as Arrow serialises it."""

    job: Job
    input_format: str
    output_format: str
    wanted: Wanted
    keep: tuple[str, ...]
    labels: tuple[str, ...]
    schema: bytes
    shards: tuple[Shard, ...]
    identity: Mapping[str, Any]

    @property
    def rows(self) -> int:
        """Of the input."""
        return sum(shard.rows for shard in self.shards)
