"""What a system's process tells of its training.

Knows a clock. Does not know the systems, nor any array library.
"""

import dataclasses
import json
import time

WARM_UP_STEPS = 20


@dataclasses.dataclass(frozen=True)
class Result:
    """`rows_per_second`: while batches are trained on, the first few left out. `seconds`: from Parquet to a trained
    model, imports left out, of which `prepare_seconds` before the first batch; None for the loop, which has no log.
    The AUCs are those of the last tenth of the rows.
    """

    rows_per_second: float
    seconds: float | None
    prepare_seconds: float | None
    auc_click: float
    auc_ctcvr: float

    def best(self, other: "Result") -> "Result":
        """The faster of two, figure by figure."""
        faster = self if (self.seconds or 0.0) <= (other.seconds or 0.0) else other
        rate = max(self.rows_per_second, other.rows_per_second)
        return dataclasses.replace(faster, rows_per_second=rate)

    def print(self) -> None:
        """One line that `read` understands, the last of the process."""
        print(json.dumps(dataclasses.asdict(self)))

    @staticmethod
    def read(output: str) -> "Result":
        """The result in what a process printed."""
        return Result(**json.loads(output.strip().splitlines()[-1]))


class Pace:
    """Takes the time at which each step ended.

    >>> pace = Pace()
    >>> for rows in (4, 4, 4): pace.add(rows)
    >>> pace.rows_per_second() > 0
    True
    """

    def __init__(self) -> None:
        self.times = [time.perf_counter()]
        self.rows = [0]

    def add(self, rows: int) -> None:
        """A step of so many rows is done."""
        self.times.append(time.perf_counter())
        self.rows.append(rows)

    def rows_per_second(self) -> float:
        """Over all steps but the first few."""
        first = min(WARM_UP_STEPS, len(self.times) - 2)
        return sum(self.rows[first + 1 :]) / (self.times[-1] - self.times[first])
