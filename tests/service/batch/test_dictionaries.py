"""Dictionaries of words, read once."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from service.batch.dictionaries import Dictionaries
from service.scoring.scorer import Scorer
from service.scoring.values import Reader


def test_another_dictionary_of_a_feature_is_read_anew_and_features_are_kept_apart(toy: Path) -> None:
    scorer = Scorer.load(toy)
    words = [name for name, found in scorer.session.words.items() if name in scorer.candidates.readers]
    reads: Reader = scorer.candidates.readers[words[0]]
    known = [word for word in scorer.session.words[words[0]].rows if word][:2]
    codes = np.array([0, 1, 1], np.int32)
    both = Dictionaries()
    one = both.read("a", reads, pa.array(known), codes)[0][:2].tolist()
    assert one == list(reads.read(known))
    assert both.read("a", reads, pa.array(known), codes)[0][:2].tolist() == one
    assert both.read("a", reads, pa.array(known[::-1]), codes)[0][:2].tolist() == one[::-1]
    assert both.read("b", reads, pa.array([known[0], "never seen"]), codes)[0][0] == one[0]
    assert one[0] != one[1]


def test_of_a_dictionary_larger_than_the_batch_only_the_words_used_are_read(toy: Path) -> None:
    scorer = Scorer.load(toy)
    name = next(name for name in scorer.session.words if name in scorer.candidates.readers)
    reads = scorer.candidates.readers[name]
    known = next(word for word in scorer.session.words[name].rows if word)
    values, bad, absent = Dictionaries().read(name, reads, pa.array(["x", "y", known]), np.array([2, -1], np.int32))
    assert values[2] == reads.read([known])[0]
    assert values[0] == values[1] == values[3] == reads.missing
    assert not bad.any()
    assert absent.tolist() == [False, False, False, True]
