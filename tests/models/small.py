"""Small random inputs and networks, the same every time."""

from typing import Any

import torch
from torch import Tensor

from models.architecture import Architecture
from models.inputs import Encoded, Inputs, Lookup, Number
from models.layers import Pair, Steps, Widths
from models.registry import ARCHITECTURES, architecture_name, build_architecture

WIDTHS = Widths(6, 6)  # even, for architectures that read two copies of the embeddings
TASKS = 2
STEPS, PROPERTIES, LENGTH = 4, 3, 5  # of the sequence that every pair brings, for architectures that read one

EVERY = [(architecture_name(entry), entry) for entry in ARCHITECTURES]
NAMES = [name for name, _ in EVERY]

# two widths; a table shared between the sides; sequences on both, one along another; numbers of every encoding on both
INPUTS = Inputs(
    lookups=(
        Lookup("item", "item", 4, offset=0),
        Lookup("city", "user", 4, offset=30),
        Lookup("recent_items", "user", 4, offset=0, length=5),
        Lookup("device", "user", 4, offset=40),
        Lookup("user", "user", 3, offset=0),
        Lookup("recent_actions", "user", 3, offset=50, length=5, along="recent_items"),
        Lookup("tags", "item", 3, offset=20, length=3),
        Lookup("brand", "item", 3, offset=40),
    ),
    numbers=(
        Number("price", "item", "piecewise", fill=2.0, indicator=True, edges=(0.0, 1.0, 4.0)),
        Number("age", "user", "standardise", fill=40.0, indicator=False, center=35.0, spread=9.0),
        Number("spend", "user", "log1p", fill=0.0, indicator=True, center=2.0, spread=1.5),
        Number("stock", "item", "quantile", fill=1.0, indicator=False, edges=(0.0, 1.0, 10.0)),
    ),
    table_rows={4: 50, 3: 60},
)
TABLE_ROWS = {
    "item": 30,
    "city": 10,
    "recent_items": 30,
    "device": 10,
    "user": 20,
    "recent_actions": 10,
    "tags": 20,
    "brand": 10,
}


def build(
    architecture: type[Architecture], widths: Widths = WIDTHS, tasks: int = TASKS, seed: int = 0, **options: Any
) -> Architecture:
    """A network of this architecture, with these options and otherwise its defaults."""
    torch.manual_seed(seed)
    chosen = architecture.options_type.model_validate(options)
    if chosen.steps:
        widths = widths._replace(steps=STEPS, properties=PROPERTIES)
    return build_architecture(chosen, widths, tasks)


def own_pair(rows: int, seed: int = 1) -> Pair:
    """Rows with their own users."""
    random = torch.Generator().manual_seed(seed)
    user, item = (torch.randn(rows, width, generator=random) for width in WIDTHS[:2])
    return Pair(user, item, None, steps(rows, seed))


def shared_pair(users: int, candidates: int, seed: int = 1, widths: Widths = WIDTHS) -> Pair:
    """Candidates that share users."""
    random = torch.Generator().manual_seed(seed)
    user, item = (
        torch.randn(users, widths.user, generator=random),
        torch.randn(candidates, widths.item, generator=random),
    )
    return Pair(user, item, torch.randint(users, (candidates,), generator=random), steps(users, seed))


def steps(users: int, seed: int = 1, length: int = LENGTH) -> Steps:
    """A sequence of each user, of any length from none to all steps; what stands on the padding is no zero."""
    random = torch.Generator().manual_seed(seed + 1000)
    values, properties = (torch.randn(users, length, width, generator=random) for width in (STEPS, PROPERTIES))
    lengths = torch.randint(length + 1, (users, 1), generator=random)
    return Steps(values, properties, torch.arange(length) < lengths)


def repeated(x: Pair) -> Pair:
    """The same with the user repeated for every candidate."""
    assert x.row_user is not None
    return of_users(x, x.row_user)._replace(row_user=None)


def of_users(x: Pair, users: Tensor | slice) -> Pair:
    """The same with these users only."""
    return x._replace(user=x.user[users], steps=Steps(*(part[users] for part in x.steps)) if x.steps else None)


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
