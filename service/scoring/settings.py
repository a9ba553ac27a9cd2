"""How to run a model, and how much one run may take in.

Knows defaults. Does not know where they are overridden (environment, command line).
"""

from dataclasses import dataclass
from typing import Literal

Provider = Literal["cpu", "cuda", "auto"]


@dataclass(frozen=True)
class ScoringSettings:
    """One intra-op thread is right for a process that owns one core; `auto` is cuda where it is installed.

    `max_cells` bounds one padded array (rows x steps), so that a single long sequence cannot blow up a run.
    """

    provider: Provider = "cpu"
    intra_op_threads: int = 1
    max_string_bytes: int = 1024
    max_cells: int = 2**22
