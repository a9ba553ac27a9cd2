"""Small random inputs and networks, the same every time."""

from typing import Any

import torch
from torch import Tensor

from models.architecture import Architecture
from models.inputs import Encoded, Inputs, Lookup, Number
from models.layers import Pair, Widths
from models.registry import ARCHITECTURES, architecture_name, build_architecture

WIDTHS = Widths(6, 6)  # even, for architectures that read two copies of the embeddings
TASKS = 2

EVERY = [(architecture_name(entry), entry) for entry in ARCHITECTURES]
NAMES = [name for name, _ in EVERY]

# two widths; a table shared between the sides; sequences on both; numbers of every encoding on both
INPUTS = Inputs(
    lookups=(
        Lookup("item", "item", 4, offset=0),
        Lookup("city", "user", 4, offset=30),
        Lookup("recent", "user", 4, offset=0, length=5),
        Lookup("device", "user", 4, offset=40),
        Lookup("user", "user", 3, offset=0),
        Lookup("tags", "item", 3, offset=20, length=3),
        Lookup("brand", "item", 3, offset=40),
    ),
    numbers=(
        Number("price", "item", "piecewise", fill=2.0, indicator=True, edges=(0.0, 1.0, 4.0)),
        Number("age", "user", "standardise", fill=40.0, indicator=False, center=35.0, spread=9.0),
        Number("spend", "user", "log1p", fill=0.0, indicator=True, center=2.0, spread=1.5),
        Number("stock", "item", "quantile", fill=1.0, indicator=False, edges=(0.0, 1.0, 10.0)),
    ),
    table_rows={4: 50, 3: 50},
)
TABLE_ROWS = {"item": 30, "city": 10, "recent": 30, "device": 10, "user": 20, "tags": 20, "brand": 10}


def build(
    architecture: type[Architecture], widths: Widths = WIDTHS, tasks: int = TASKS, seed: int = 0, **options: Any
) -> Architecture:
    """A network of this architecture, with these options and otherwise its defaults."""
    torch.manual_seed(seed)
    return build_architecture(architecture.options_type.model_validate(options), widths, tasks)


def own_pair(rows: int, seed: int = 1) -> Pair:
    """Rows with their own users."""
    random = torch.Generator().manual_seed(seed)
    user, item = (torch.randn(rows, width, generator=random) for width in WIDTHS)
    return Pair(user, item, None)


def shared_pair(users: int, candidates: int, seed: int = 1, widths: Widths = WIDTHS) -> Pair:
    """Candidates that share users."""
    random = torch.Generator().manual_seed(seed)
    user, item = (
        torch.randn(users, widths.user, generator=random),
        torch.randn(candidates, widths.item, generator=random),
    )
    return Pair(user, item, torch.randint(users, (candidates,), generator=random))


def repeated(x: Pair) -> Pair:
    """The same with the user repeated for every candidate."""
    assert x.row_user is not None
    return Pair(x.user[x.row_user], x.item, None)


def columns(users: int, candidates: int, seed: int = 2) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """What `Ranker.rank` takes: table rows by feature, user numbers, item numbers. A quarter is missing."""
    random = torch.Generator().manual_seed(seed)
    found: dict[str, Tensor] = {}
    for lookup in INPUTS.lookups:
        rows = users if lookup.side == "user" else candidates
        shape = (rows, lookup.length) if lookup.length else (rows,)
        value = torch.randint(1, TABLE_ROWS[lookup.name], shape, generator=random)
        found[lookup.name] = lookup.offset + value * (torch.rand(shape, generator=random) < 0.75)
    numbers = []
    for rows in (users, candidates):
        drawn = torch.randn(rows, 2, generator=random).exp() * 5
        numbers.append(drawn.masked_fill(torch.rand(rows, 2, generator=random) < 0.25, torch.nan))
    return found, numbers[0], numbers[1]


def encoded(found: dict[str, Tensor], user_numbers: Tensor, item_numbers: Tensor) -> Encoded:
    """The same rows, each with its own user, as training holds them."""
    ids = {
        dim: torch.cat([found[x.name].view(len(item_numbers), -1) for x in INPUTS.ordered(dim)], dim=1)
        for dim in INPUTS.table_rows
    }
    return Encoded(ids, torch.cat([user_numbers, item_numbers], dim=1))
