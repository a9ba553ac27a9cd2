"""Simulating an impression log and writing it, hour by hour, in memory that does not grow with the rows.

Knows the order of the stages, and files. Does not know effects, traits or columns.
"""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from contract.errors import RunInvalid, TargetExists, TargetUnwritable
from training.simulator.simulation import Simulation
from training.simulator.table import LOG_SCHEMA, TRUTH_SCHEMA

LOG, TRUTH = "log.parquet", "truth.parquet"
MAX_ROW_GROUP = 131_072


def simulate(
    directory: Path,
    *,
    rows: int,
    seed: int = 0,
    days: int = 14,
    on_progress: Callable[[int], None] | None = None,
) -> None:
    """Write `rows` impressions over `days` days to `directory`: log.parquet in time order, and truth.parquet.

    The same arguments and library versions give the same bytes. `on_progress` is told the rows made so far.
    Each file appears whole or not at all, the log last. A row group is at most a day.
    Raises: RunInvalid, TargetExists, TargetUnwritable.
    """
    if rows < 1 or days < 1 or seed < 0:
        raise RunInvalid(
            f"cannot simulate rows = {rows}, days = {days}, seed = {seed}",
            place="simulate",
            remedy="give at least 1 row, 1 day and a seed of 0 or more",
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _Target(directory / TRUTH, TRUTH_SCHEMA) as truth, _Target(directory / LOG, LOG_SCHEMA) as log:
            done = 0
            for hour in Simulation(rows=rows, seed=seed, days=days).hours():
                log.add(hour.log, flush=hour.last_of_day)
                truth.add(hour.truth, flush=hour.last_of_day)
                done += hour.log.num_rows
                if on_progress is not None:
                    on_progress(done)
            log.close()
            truth.close()
            truth.publish()
            log.publish()
    except BrokenPipeError:  # of whoever is told of progress
        raise
    except OSError as error:
        raise TargetUnwritable(
            f"cannot be written ({error.strerror or error})", place=str(directory), remedy="choose another directory"
        ) from None


class _Target:
    """A Parquet file under a temporary name, until it is published; removed if it never is."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._staging = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        self._waiting: list[pa.Table] = []
        self._refuse_existing()
        self._writer = pq.ParquetWriter(self._staging, schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
        finally:
            self._staging.unlink(missing_ok=True)

    def add(self, table: pa.Table, *, flush: bool) -> None:
        """Append rows; a row group ends at MAX_ROW_GROUP rows or when told to `flush`."""
        self._waiting.append(table)
        if flush or sum(waiting.num_rows for waiting in self._waiting) >= MAX_ROW_GROUP:
            self._write()

    def close(self) -> None:
        """Finish the file and see it to the disk."""
        self._write()
        self._writer.close()
        with open(self._staging, "rb") as file:
            os.fsync(file.fileno())

    def publish(self) -> None:
        """Give the finished file its name."""
        self._refuse_existing()
        self._staging.rename(self._path)

    def _write(self) -> None:
        whole = pa.concat_tables(self._waiting) if self._waiting else None
        self._waiting = []
        if whole is not None and whole.num_rows:
            self._writer.write_table(whole, row_group_size=MAX_ROW_GROUP)

    def _refuse_existing(self) -> None:
        if self._path.exists() or self._path.is_symlink():
            raise TargetExists(
                "there already, and a log is never overwritten",
                place=str(self._path),
                remedy="choose another directory or remove the file",
            )
