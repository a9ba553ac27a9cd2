import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.training.ranking import auc


@pytest.mark.parametrize("decimals", [1, 2, 6])
def test_it_is_the_auc_of_scikit_learn(decimals: int) -> None:
    random = np.random.default_rng(decimals)
    label = random.random(2_000) < 0.05
    score = (random.normal(size=2_000) + label).round(decimals)
    assert auc(label, score) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
