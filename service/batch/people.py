"""Who is who in a batch: rows whose columns of the user's side are all equal are one user, computed once.

Rows of one user mostly follow each other, and are found by comparing each row with the one before. Users that come
again later are found by a hash, and compared before they are believed. Knows numbers, codes and flat lists. Does not
know features.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.batch.lists import Spans, differing, differing_from_before, hashes, mix

Ints = NDArray[np.int64]
ODD = np.uint64(0x9E3779B97F4A7C15)  # so that what stands in one column is not taken for what stands in another
Flat = tuple[Spans, NDArray[Any]]


def people(keys: Sequence[NDArray[Any]], lists: Sequence[Flat], rows: int) -> tuple[Ints, Ints]:
    """The first row of each user [U], and the user of each row [B].

    keys: integers or floats [B] (NaN equals NaN); lists: spans of B rows and their values. Users are numbered as they
    first come. Without any column all rows are one user.
    """
    keys = [_comparable(key) for key in keys]
    if rows == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    new = np.concatenate([[True], _unlike_before(keys, lists, rows)])
    heads = np.flatnonzero(new)
    user_of_head = _groups(keys, lists, heads)
    row_user = user_of_head[np.cumsum(new) - 1]
    firsts = heads[np.concatenate([[True], user_of_head[1:] > np.maximum.accumulate(user_of_head)[:-1]])]
    return firsts, row_user


def _comparable(key: NDArray[Any]) -> NDArray[Any]:
    """Integers of the same bits: NaN is then equal to itself."""
    if key.dtype.kind == "f":
        return np.ascontiguousarray(key).view({2: np.int16, 4: np.int32, 8: np.int64}[key.dtype.itemsize])
    return key


def _unlike_before(keys: Sequence[NDArray[Any]], lists: Sequence[Flat], rows: int) -> NDArray[np.bool_]:
    """Which rows but the first are not of one user with the row before: bool [B - 1]."""
    unlike = np.zeros(rows - 1, np.bool_)
    for key in keys:
        unlike |= key[1:] != key[:-1]
    for spans, values in lists:
        unlike |= differing_from_before(spans, values)
    return unlike


def _unlike(keys: Sequence[NDArray[Any]], lists: Sequence[Flat], one: Ints, other: Ints) -> NDArray[np.bool_]:
    """Of rows `one` [R] and `other` [R], which pairs are not one user: bool [R]."""
    unlike = np.zeros(len(one), np.bool_)
    for key in keys:
        unlike |= key[one] != key[other]
    for spans, values in lists:
        left = np.flatnonzero(~unlike)
        unlike[left] = differing(spans, values, one[left], other[left])
    return unlike


def _groups(keys: Sequence[NDArray[Any]], lists: Sequence[Flat], heads: Ints) -> Ints:
    """The user of each head [H], numbered as they first come."""
    found = np.zeros(len(heads), np.uint64)
    for key in keys:
        found = mix(found * ODD + key[heads].astype(np.uint64))
    _, inverse, count = np.unique(found, return_inverse=True, return_counts=True)
    again = np.flatnonzero(count[inverse] > 1)  # who is alone in that needs no hash of long lists
    for spans, values in lists:
        found[again] = mix(found[again] * ODD + hashes(spans, values, heads[again]))
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    twin = first[inverse]  # the first head of the same hash
    later = np.flatnonzero(twin != np.arange(len(heads)))
    twin[later[_unlike(keys, lists, heads[later], heads[twin[later]])]] = -1
    own = (twin == np.arange(len(heads))) | (twin < 0)
    number = np.cumsum(own) - 1
    return np.where(own, number, number[twin])
