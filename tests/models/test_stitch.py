"""A stitch mixes its members by a matrix."""

import pytest
import torch

from models.stitch import Stitch


@pytest.mark.parametrize("channels", [1, 4])
def test_members_are_mixed_by_the_matrix(channels: int) -> None:
    torch.manual_seed(0)
    stitch, xs = Stitch(3, 0.7, channels), torch.randn(3, 5, 4)
    stitch.weight.data.normal_()
    expected = torch.einsum("ijc,jnc->inc", stitch.weight.expand(3, 3, 4), xs)
    assert torch.allclose(torch.stack(stitch(list(xs))), expected, atol=1e-6)


def test_rows_start_at_a_sum_of_one_and_the_card_shows_them() -> None:
    stitch = Stitch(4, 0.7)
    assert torch.allclose(stitch.weight.sum(dim=1), torch.ones(4, 1))
    told = stitch.tell("title", "text", ["a", "b", "c", "d"])
    assert told.shaded
    assert told.rows[1] == ("b", *[pytest.approx(x) for x in (0.1, 0.7, 0.1, 0.1)])
