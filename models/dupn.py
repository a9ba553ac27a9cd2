"""DUPN: a property-gated LSTM over the user's steps, and attention by each candidate (Ni et al. 2018).

arXiv 1805.10727, "Property Gated LSTM" and "Attention Net". Knows steps and properties. Does not know of what features.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from models.architecture import Architecture, Layers, Options, Particular
from models.layers import Pair, PairLinear, Steps, Towers, Widths


class DUPNOptions(Options):
    """`sequence`: the user's sequence that is read step by step; those that run `along` it are its properties.

    `hidden`: width of the LSTM's state; `attention`: hidden width of the attention's network; `tower`: hidden
    widths of each task's network.
    """

    architecture: Literal["dupn"] = "dupn"
    sequence: str = Field(default="recent_items", min_length=1)
    hidden: int = Field(default=64, ge=1, le=4096)
    attention: int = Field(default=32, ge=1, le=4096)
    tower: Layers = (128, 64)

    @property
    def steps(self) -> str | None:
        """The main sequence."""
        return self.sequence


class PropertyGatedLSTM(nn.Module):
    """An LSTM whose gates read the step and its properties [e; p], and whose candidate state reads e alone.

    i, f, o = s(W_e e_t + W_p p_t + W_h h_(t-1) + b), but c~ = tanh(W_e e_t + W_h h_(t-1) + b): the ordinary LSTM on
    [e; p] whose candidate block has weights of 0 for p. They begin as 0 and get no gradient, hence no step and nothing
    to decay: they stay exactly 0.
    """

    may_learn: Tensor

    def __init__(self, values: int, properties: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(values + properties, hidden, batch_first=True)
        weight = self.lstm.get_parameter("weight_ih_l0")
        may_learn = torch.ones_like(weight)
        may_learn[2 * hidden : 3 * hidden, values:] = 0.0  # torch stacks the blocks as i, f, candidate, o
        self.register_buffer("may_learn", may_learn, persistent=False)
        with torch.no_grad():
            weight.mul_(may_learn)
        weight.register_hook(lambda gradient: gradient * self.may_learn)  # type: ignore[no-untyped-call]

    def forward(self, steps: Steps) -> Tensor:
        """Steps -> the state after each of them [U, L, H]; those after padding on the right mean nothing."""
        states: Tensor = self.lstm(torch.cat([steps.values, steps.properties], dim=2))[0]
        return states


class DUPN(Architecture):
    """a_t = softmax_t(v' relu(W [h_t; p_t; user; item])); y_k = t_k([sum_t a_t h_t; user; item]).

    W is split, so that only the item's part is computed per candidate: states and their part of the attention are
    computed once per user. A user without steps has a summary of 0.

    NOTE[DIFF]: the paper ranks for a query, which its attention reads; a log of impressions has none, and the
    candidate is what the steps are held against.
    """

    options_type = DUPNOptions

    def __init__(self, options: DUPNOptions, widths: Widths, tasks: int) -> None:
        super().__init__(options, widths, tasks)
        self.first = PairLinear(widths, options.attention, *[options.tower[0]] * tasks)
        self.cell = PropertyGatedLSTM(widths.steps, widths.properties, options.hidden)
        self.keys = nn.Linear(options.hidden + widths.properties, options.attention, bias=False)
        self.attention = nn.Linear(options.attention, 1, bias=False)  # softmax would cancel a bias
        bound = options.hidden**-0.5
        self.summary = nn.Parameter(torch.empty(tasks, options.hidden, options.tower[0]).uniform_(-bound, bound))
        self.towers = Towers(tasks, options.tower, options.dropout)

    def forward(self, x: Pair) -> Tensor:
        """Pair -> logits [N, T]."""
        query, *hidden = self.first(x)
        weights, states, _ = self.attend(x, query)
        summary = torch.bmm(weights.unsqueeze(1), states).squeeze(1)
        hidden = [torch.addmm(h, summary, w).relu() for h, w in zip(hidden, self.summary.unbind(), strict=True)]
        logits: Tensor = self.towers(hidden)
        return logits

    def attend(self, x: Pair, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The item's and user's part of the attention [N, A] -> weights [N, L], states [N, L, H], present [N, L].

        The weights are 0 on padding, and sum to 1, or to 0 for a user without steps.
        Raises: ValueError when the pair brings no steps.
        """
        if x.steps is None:
            raise ValueError("the pair brings no steps of a sequence")
        states, present = self.cell(x.steps), x.steps.present
        keys = self.keys(torch.cat([states, x.steps.properties], dim=2))
        if x.row_user is not None:
            states, keys, present = (part.index_select(0, x.row_user) for part in (states, keys, present))
        scores = self.attention((keys + query.unsqueeze(1)).relu()).squeeze(2)
        # not -inf, of which the softmax is no number where all is padding
        weights = scores.masked_fill(~present, torch.finfo(scores.dtype).min).softmax(dim=1)
        return weights * present.to(weights.dtype), states, present

    def tell(self, x: Pair, tasks: Sequence[str]) -> tuple[Particular, ...]:
        """The mean attention to the last step, the one before it, and so on."""
        weights, _, present = self.attend(x, self.first(x)[0])
        from_end = present.flip(1).cumsum(dim=1).flip(1)
        alike = present / present.sum(dim=1, keepdim=True).clamp(min=1)
        rows: list[tuple[str | float, ...]] = []
        for k in range(1, present.shape[1] + 1):
            there = present & (from_end == k)
            if there.any():
                share = float(there.any(dim=1).float().mean())
                rows.append((str(k), float(weights[there].mean()), float(alike[there].mean()), share))
        text = "Mean weight of a step, counted from the last one, over the rows that have it."
        columns = ("step from the end", "attention", "if all steps weighed alike", "rows that have it")
        return (Particular("Attention by recency", text, columns, tuple(rows), shaded=True),)
