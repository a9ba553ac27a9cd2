"""The words of a column's dictionary as the scorer reads them: each once, however many rows and batches hold it.

Knows dictionaries and the scorer's readers. Does not know sides, rows or users.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.scoring.values import BadValue, Reader

Array = NDArray[Any]
Mask = NDArray[np.bool_]
Table = tuple[Array, Mask, Mask]


class Dictionaries:
    """Remembers what the last dictionary of each feature was read as: batches of one block mostly have the same."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[pa.Array, Table]] = {}

    def read(self, name: str, reads: Reader, dictionary: pa.Array, codes: Array) -> Table:
        """See `table_of`."""
        if len(dictionary) > len(codes):
            return table_of(reads, dictionary, codes)
        last = self._last.get(name)
        if last is None or not last[0].equals(dictionary):
            last = self._last[name] = dictionary, table_of(reads, dictionary, codes)
        return last[1]


def table_of(reads: Reader, dictionary: pa.Array, codes: Array) -> Table:
    """What the words of a dictionary are read as, with the missing value last; which are refused; which are missing.

    Of a dictionary much larger than the batch only the words used are read.
    """
    size = len(dictionary)
    used = np.arange(size)
    if size > len(codes):
        marks = np.zeros(size + 1, np.bool_)
        marks[codes] = True  # -1 marks the last, which is no word
        used = np.flatnonzero(marks[:-1])
        dictionary = dictionary.take(pa.array(used))
    table = np.full(size + 1, reads.missing, dtype=reads.dtype)
    bad, absent = np.zeros(size + 1, np.bool_), np.zeros(size + 1, np.bool_)
    absent[-1] = True
    try:
        values = dictionary.to_pylist()
        table[used] = reads.read(values)
    except (BadValue, UnicodeDecodeError):
        for index, place in enumerate(used):
            try:
                table[place] = reads.read([dictionary[index].as_py()])[0]
            except (BadValue, UnicodeDecodeError):
                bad[place] = True
        values = [None if bad[place] else dictionary[index].as_py() for index, place in enumerate(used)]
    if "" in values:
        absent[used[values.index("")]] = True
    return table, bad, absent
