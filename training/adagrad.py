"""Row-wise Adagrad for one embedding table, outside autograd.

Knows a table, ids and gradients. Does not know features, losses or schedules.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class RowwiseAdagrad:
    """One accumulator per row (Duchi et al. 2011, with a row's mean square in place of each element's).

    A step costs what the batch touches, whatever the table holds: the ids are sorted, with their position in
    the low bits of the key; each run of equal ids is one bag; `embedding_bag` sums its gradients, in position
    order and by one thread, so that two runs agree bit for bit.
    """

    def __init__(self, table: Tensor, *, learning_rate: float, eps: float = 1e-8) -> None:
        self.table, self.learning_rate, self.eps = table, learning_rate, eps
        self.state = torch.zeros(table.shape[0], dtype=table.dtype)

    @torch.no_grad()
    def step(self, ids: Tensor, grad: Tensor) -> None:
        """Update the rows `ids` [n] from the gradients of their looked-up copies, `grad` [n, D] contiguous."""
        rows, positions, starts = occurrences(ids)
        total = F.embedding_bag(positions, grad, starts, mode="sum")
        state = self.state.index_select(0, rows).add_(total.square().mean(dim=1))
        self.state.index_copy_(0, rows, state)
        step = state.sqrt_().add_(self.eps).reciprocal_().mul_(-self.learning_rate)
        # product and sum are rounded apart: fused, a row's last bit would depend on what else is in the batch
        self.table.index_copy_(0, rows, self.table.index_select(0, rows).add_(total.mul_(step[:, None])))


def occurrences(ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Group equal ids: distinct ids, ascending [m]; positions ordered by id [n]; where each id starts [m]."""
    bits = ids.numel().bit_length()
    key = ids.numpy().astype(np.int64)  # a copy: sorted in place
    key <<= bits
    key |= np.arange(key.size)
    key.sort()  # SIMD quicksort; keys are distinct, so the order is total
    value = key >> bits
    first = np.empty(key.size, dtype=np.bool_)
    first[:1] = True
    np.not_equal(value[1:], value[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    key &= (1 << bits) - 1
    return torch.from_numpy(value[starts]), torch.from_numpy(key), torch.from_numpy(starts)
