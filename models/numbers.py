"""Numeric encodings inside the network, so that training and serving share one implementation.

Knows fitted centers, spreads and edges. Does not know how they were fitted.
"""

import torch
from torch import Tensor, nn

from models.inputs import Number

AFFINE_LIMIT = 20.0  # beyond it a float32 sum would lose the digits of the other features


class Numbers(nn.Module):
    """Encodes all numeric features of a side at once: [B, F] with NaN for missing -> [B, width].

    Blocks of the output, each for the features that have it, in order: affine values (standardise, log1p), one
    step function per edge but the lowest (quantile), one ramp per bin (piecewise), missing indicators.

    Affine values are kept within AFFINE_LIMIT, so that no finite input can overflow further on.

    NOTE[DIFF]: the ramps of the first and last bin are kept within [0, 1] too, where Gorishniy et al. 2022
    (eq. 1) let them run on: a price of 1e9 in production must not score like nothing seen in training.
    """

    fill: Tensor
    center: Tensor
    per_spread: Tensor
    is_log: Tensor
    step_edge: Tensor
    ramp_start: Tensor
    per_ramp: Tensor
    affine: Tensor
    steps: Tensor
    ramps: Tensor
    indicators: Tensor

    def __init__(self, numbers: tuple[Number, ...]) -> None:
        super().__init__()
        affine = [(i, x) for i, x in enumerate(numbers) if x.encoding in ("standardise", "log1p")]
        steps = [(i, e) for i, x in enumerate(numbers) if x.encoding == "quantile" for e in x.edges[1:]]
        ramps = [
            (i, low, high)
            for i, x in enumerate(numbers)
            if x.encoding == "piecewise"
            for low, high in zip(x.edges[:-1], x.edges[1:], strict=True)
        ]
        self._constant("fill", [x.fill for x in numbers])
        self._constant("center", [x.center for _, x in affine])
        self._constant("per_spread", [1.0 / x.spread for _, x in affine])
        self._constant("is_log", [float(x.encoding == "log1p") for _, x in affine])
        self._constant("step_edge", [edge for _, edge in steps])
        self._constant("ramp_start", [low for _, low, _ in ramps])
        self._constant("per_ramp", [1.0 / (high - low) for _, low, high in ramps])
        self._index("affine", [i for i, _ in affine])
        self._index("steps", [i for i, _ in steps])
        self._index("ramps", [i for i, _, _ in ramps])
        self._index("indicators", [i for i, x in enumerate(numbers) if x.indicator])
        self.width = len(affine) + len(steps) + len(ramps) + sum(x.indicator for x in numbers)
        self.any_log = any(x.encoding == "log1p" for x in numbers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, F] -> [B, width]."""
        x = x.t().contiguous()  # to copy a row each is much faster than to pick from every row, in onnxruntime too
        missing = torch.isnan(x)
        x = torch.where(missing, self.fill, x)
        blocks = []
        if len(self.affine):
            value = x.index_select(0, self.affine)
            if self.any_log:
                value = torch.where(self.is_log > 0, value.sign() * value.abs().log1p(), value)
            blocks.append(((value - self.center) * self.per_spread).clamp(-AFFINE_LIMIT, AFFINE_LIMIT))
        if len(self.steps):
            blocks.append((x.index_select(0, self.steps) >= self.step_edge).to(x.dtype))
        if len(self.ramps):
            blocks.append(((x.index_select(0, self.ramps) - self.ramp_start) * self.per_ramp).clamp(0.0, 1.0))
        if len(self.indicators):
            blocks.append(missing.index_select(0, self.indicators).to(x.dtype))
        return torch.cat(blocks).t().contiguous()

    def _constant(self, name: str, values: list[float]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None], persistent=False)

    def _index(self, name: str, values: list[int]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)
