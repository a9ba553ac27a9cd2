"""What the card says of a run on its own: where too few rows are positive to say much."""

import numpy as np

from contract.tasks import CLICK_AND_CONVERSION
from training.facts import limits


def labels(clicks: int, conversions: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """1,000 rows with so many positives of each task."""
    row = np.arange(1000)
    return np.stack([row < clicks, row < conversions], axis=1).astype(np.uint8)


def test_card_says_where_positives_are_few() -> None:
    found = limits(CLICK_AND_CONVERSION, [labels(900, 300), labels(100, 40), labels(200, 99)])
    assert len(found) == 1
    assert found[0].startswith("conversion: calibrated on 40, measured on 99 positive rows.")


def test_card_keeps_silent_where_positives_abound() -> None:
    assert limits(CLICK_AND_CONVERSION, [labels(900, 100)] * 3) == ()
