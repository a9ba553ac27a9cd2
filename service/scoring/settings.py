"""How to run a model, and how much one run may take in.

Knows defaults. Does not know where they are overridden (environment, command line).
"""

from dataclasses import dataclass
from typing import Literal

Provider = Literal["cpu", "cuda", "auto"]


@dataclass(frozen=True)
class ScoringSettings:
    """One intra-op thread is right for a process that owns one core; `auto` is cuda where it is installed.

    A vocabulary of up to `max_words` is looked up before the run (`service.scoring.lookups`); a word takes about 150
    bytes in Python, twice what it takes in onnxruntime. `max_cells` bounds one padded array (rows x steps), so that a
    single long sequence cannot blow up a run.
    """

    provider: Provider = "cpu"
    intra_op_threads: int = 1
    max_words: int = 200_000
    max_string_bytes: int = 1024
    max_cells: int = 2**22
