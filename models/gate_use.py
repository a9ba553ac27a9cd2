"""What the card says of gates: how much each task uses each expert, and which experts nobody uses.

Knows gate weights. Does not know what the experts or the gates are made of.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from models.architecture import Particular

UNUSED = 0.01  # mean gate weight below which an expert counts as unused


def gate_use(title: str, weights: Tensor, groups: Sequence[str], experts: Sequence[str]) -> Particular:
    """Mean weights of the experts by group, and the gates' entropy over its largest value.

    weights [N, G, E] sum to 1 over E; 0 throughout for an expert that a group may not choose. Entropy 1 is an even
    mixture in every row, 0 a single expert in every row; a gate with nothing to choose has 1.
    """
    use = weights.mean(dim=0)
    entropy = -(weights * weights.clamp(min=1e-30).log()).sum(dim=2).mean(dim=0)
    rows: list[tuple[str | float, ...]] = []
    for group, means, found in zip(groups, use.tolist(), entropy.tolist(), strict=True):
        largest = math.log(max(1, sum(mean > 0 for mean in means)))
        rows.append((group, *means, found / largest if largest else 1.0))
    text = "Mean gate weight of each expert; entropy 1 mixes all evenly in every row, 0 takes one."
    unused = [name for name, most in zip(experts, use.amax(dim=0).tolist(), strict=True) if most < UNUSED]
    if unused:
        text += f" ALARM: below 1 % for every task, so of no use: {', '.join(unused)}."
    return Particular(title, text, ("", *experts, "entropy"), tuple(rows), shaded=True)
