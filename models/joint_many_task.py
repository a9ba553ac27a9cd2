"""Joint Many-Task Model (Hashimoto et al., EMNLP 2017, arXiv 1611.01587, section 2): a level per task, in order.

Knows levels. Does not know in which order they are trained (`training/schedules/staged.py`).
"""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from models.architecture import Architecture, Layers, Levels, Options, Particular
from models.layers import Bank, Pair, PairLinear, Towers, Widths


class JointManyTaskOptions(Options):
    """`level`: hidden widths of a level; `tower`: of its classifier; `label_dim`: width of a label's embedding."""

    architecture: Literal["joint_many_task"] = "joint_many_task"
    level: Layers = (128, 64)
    label_dim: int = Field(default=8, ge=1, le=1024)
    tower: Layers = (32,)


class JointManyTask(Architecture, Levels):
    """h_k = f_k([e; h_(k-1); l_(k-1)]), y_k = s(t_k(h_k)), l_k = sum_j p(y_k = j) E_j; level 0 reads e alone.

    NOTE[DIFF]: f_k is a perceptron and t_k has hidden layers, where the paper has a bi-LSTM and a softmax layer: a row
    is no sentence. A level reads the label of the level below alone, where the paper's third adds those of both levels
    below: h_(k-1) has read the others.
    """

    options_type = JointManyTaskOptions

    def __init__(self, options: JointManyTaskOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        self.levels = nn.ModuleList(Level(options, widths, bottom=k == 0) for k in range(tasks))

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        return torch.cat([logit for _, logit, _ in self.climb(x)], dim=1)

    def climb(self, x: Pair) -> list[tuple[Tensor, Tensor, Pair]]:
        """Level by level: h [N, H], the logit [N, 1], and the pair that the level's first layer has read."""
        found: list[tuple[Tensor, Tensor, Pair]] = []
        for level in self.levels:
            found.append(level(x, *found[-1][:2] if found else (None, None)))
        return found

    def level_parameters(self, k: int) -> list[nn.Parameter]:
        """Those of level k alone. The label embeddings it reads are its own (section 3: theta_chk holds E_POS)."""
        return list(self.levels[k].parameters())

    def level_weights(self, k: int) -> list[nn.Parameter]:
        """W_k: the matrices of level k, without biases and label embeddings."""
        named = self.levels[k].named_parameters()
        return [parameter for name, parameter in named if "bias" not in name and name != "labels"]

    def tell(self, x: Pair, tasks: Sequence[str]) -> tuple[Particular, ...]:
        """How much of what a level's first layer computes comes from each of its inputs."""
        rows: list[tuple[str | float, ...]] = []
        for task, level, (_, _, read) in zip(tasks, self.levels, self.climb(x), strict=True):
            rows.append((task, *cast(Level, level).sources(read)))
        text = (
            "A level reads the embeddings again, what the level below made of them, and its label. Share of the "
            "variance over validation rows that each brings to the sums in the level's first layer."
        )
        return (Particular("What each level reads", text, ("", "embeddings", "below", "label"), tuple(rows), True),)


class Level(nn.Module):
    """One task's network: [e; h; l] -> h_k [N, H] and logit [N, 1]."""

    labels: nn.Parameter | None

    def __init__(self, options: JointManyTaskOptions, widths: Widths, bottom: bool) -> None:
        super().__init__()
        below = () if bottom else (options.level[-1], options.label_dim)
        self.parts = [widths.item, *below]
        self.register_parameter("labels", None if bottom else nn.Parameter(torch.randn(2, options.label_dim)))
        self.first = PairLinear(widths._replace(item=sum(self.parts)), options.level[0])
        self.rest = Bank(1, options.level, options.dropout)
        self.tower = Towers(1, (options.level[-1], *options.tower), options.dropout)

    def forward(self, x: Pair, h: Tensor | None, logit: Tensor | None) -> tuple[Tensor, Tensor, Pair]:
        """The pair, and h [N, H] and logit [N, 1] of the level below -> its own, and the pair it has read."""
        if h is not None and logit is not None and self.labels is not None:
            below = torch.cat([h, expected_label(logit, self.labels)], dim=1)
            x = x._replace(item=torch.cat([x.item, below], dim=1))  # there is one per candidate, as of the item
        (first,) = self.first(x)
        (own,) = self.rest([first.relu()])
        return own, self.tower([own]), x

    @torch.no_grad()
    def sources(self, read: Pair) -> list[float]:
        """Shares of the variance of the first layer's sums by input: e, h, l; h and l are 0 at the bottom."""
        user = read.user @ self.first.user.t()
        if read.row_user is not None:
            user = user[read.row_user]
        items = zip(*(torch.split(x, self.parts, dim=1) for x in (read.item, self.first.item)), strict=True)
        e, *below = (part @ weight.t() for part, weight in items)
        spread = [float(part.var(dim=0, correction=0).sum()) for part in (user + e, *below)]
        return [part / max(sum(spread), 1e-12) for part in [*spread, 0.0, 0.0][:3]]


def expected_label(logit: Tensor, labels: Tensor) -> Tensor:
    """l = sum_j p(y = j) E_j (section 2): logit [N, 1], [2, label_dim] -> [N, label_dim]."""
    p = logit.sigmoid()
    return (1 - p) * labels[0] + p * labels[1]
