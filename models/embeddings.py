"""From encoded rows to the two halves of the network's input, user and item.

Knows tables, pooling and numeric encodings. Does not know raw values, nor what the vectors are for.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contract.features import MISSING_ROW, UNKNOWN_ROW, Side
from models.inputs import Encoded, Inputs, Lookup
from models.layers import Pair, Steps, Widths
from models.numbers import Numbers

SIDES: tuple[Side, Side] = ("user", "item")


class Embeddings(nn.Module):
    """All tables of one width are one parameter, so that a batch is one lookup and one update per width.

    A side's vector holds, width by width, its values' rows and its sequences' means, then its numbers. With
    several `copies`, every value has as many rows, a table's height apart, and a side's vector is those of the
    copies one after another. The sequence named `steps`, and those that run along it, are not pooled into the
    user's vector but given step by step.
    """

    def __init__(self, inputs: Inputs, copies: int = 1, std: float = 0.01, *, steps: str | None = None) -> None:
        super().__init__()
        if steps and copies > 1:
            raise ValueError("the steps of a sequence are given in one copy only")
        self.steps = inputs.parallel(steps) if steps else ()
        self.inputs, self.copies = inputs, copies
        self.dims = sorted({lookup.dim for lookup in inputs.lookups})
        self.tables = nn.ParameterDict()
        for dim in self.dims:
            table = torch.empty(copies, inputs.table_rows[dim], dim).normal_(std=std)
            for lookup in inputs.lookups:
                if lookup.dim == dim:  # neutral until training moves them
                    table[:, [lookup.offset + MISSING_ROW, lookup.offset + UNKNOWN_ROW]] = 0.0
            self.tables[str(dim)] = nn.Parameter(table.flatten(0, 1))
        self.user_numbers = Numbers(inputs.side("user").numbers)
        self.item_numbers = Numbers(inputs.side("item").numbers)

    @property
    def widths(self) -> Widths:
        """Width of each side's vector, and of a step and its properties."""
        user, item = (
            sum(lookup.dim for lookup in self.inputs.side(side).lookups if lookup not in self.steps) for side in SIDES
        )
        return Widths(
            self.copies * (user + self.user_numbers.width),
            self.copies * (item + self.item_numbers.width),
            sum(lookup.dim for lookup in self.steps[:1]),
            sum(lookup.dim for lookup in self.steps[1:]),
        )

    def row_ids(self, ids: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """All copies' rows of some ids: for each width [B, columns] -> [B, copies * columns]."""
        if self.copies == 1:
            return dict(ids)
        heights = self.inputs.table_rows
        return {dim: torch.cat([ids[dim] + k * heights[dim] for k in range(self.copies)], 1) for dim in self.dims}

    def look_up(self, row_ids: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Rows of the tables: for each width, `row_ids` [B, copies * columns] -> [B, copies * columns, width]."""
        return {dim: F.embedding(row_ids[dim], self.tables[str(dim)]) for dim in self.dims}

    def from_rows(self, encoded: Encoded, rows: Mapping[int, Tensor]) -> Pair:
        """Training: rows with their own users, both sides' vectors [B, D_user] and [B, D_item], from looked-up rows."""
        chunks = {dim: rows[dim].chunk(self.copies, dim=1) for dim in self.dims}
        pairs = [self._from_copy(encoded, {dim: chunks[dim][k] for dim in self.dims}) for k in range(self.copies)]
        if self.copies == 1:
            return pairs[0]
        return Pair(torch.cat([x.user for x in pairs], 1), torch.cat([x.item for x in pairs], 1), None)

    def _from_copy(self, encoded: Encoded, rows: Mapping[int, Tensor]) -> Pair:
        step_rows: dict[str, Tensor] = {}
        step_ids: dict[str, Tensor] = {}
        parts: dict[Side, list[Tensor]] = {"user": [], "item": []}
        for dim in self.dims:
            blocks = [(side, block) for side in SIDES for block in self._blocks(side, dim)]
            sizes = [sum(lookup.length or 1 for lookup in block) for _, block in blocks]
            ids = torch.split(encoded.ids[dim], sizes, dim=1)
            # one split, not a slice each: the gradient of a slice is a zero-filled copy of the whole
            for (side, block), own_rows, own_ids in zip(blocks, torch.split(rows[dim], sizes, dim=1), ids, strict=True):
                if block[0] in self.steps:
                    step_rows[block[0].name], step_ids[block[0].name] = own_rows, own_ids
                elif block[0].length is None:
                    parts[side].append(own_rows.flatten(1))
                else:
                    parts[side].append(pool(own_rows, own_ids, block[0]))
        users = len(self.inputs.side("user").numbers)
        user = self._join("user", parts["user"], encoded.numbers[:, :users])
        item = self._join("item", parts["item"], encoded.numbers[:, users:])
        return Pair(user, item, None, self._side_by_side(step_rows, step_ids))

    def from_columns(self, side: Side, columns: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        """Serving: a side's vector [B, D] from each feature's table rows, [B] or [B, L] for any L."""
        parts = [self._copy_from_columns(side, columns, numbers, copy) for copy in range(self.copies)]
        return torch.cat(parts, dim=1) if self.copies > 1 else parts[0]

    def steps_from_columns(self, columns: Mapping[str, Tensor]) -> Steps | None:
        """Serving: the steps from their table rows [U, L], for any L >= 1 that is that of all parallel sequences."""
        rows = {x.name: F.embedding(columns[x.name], self.tables[str(x.dim)]) for x in self.steps}
        return self._side_by_side(rows, columns)

    def _side_by_side(self, rows: Mapping[str, Tensor], ids: Mapping[str, Tensor]) -> Steps | None:
        if not self.steps:
            return None
        main, *along = self.steps
        properties = torch.cat([rows[x.name] for x in along], 2) if along else rows[main.name][:, :, :0]
        # a property may be missing from a step that is there: only the main sequence tells of padding
        return Steps(rows[main.name], properties, ids[main.name] != main.offset + MISSING_ROW)

    def _copy_from_columns(self, side: Side, columns: Mapping[str, Tensor], numbers: Tensor, copy: int) -> Tensor:
        parts = []
        for dim in self.dims:
            table, shift = self.tables[str(dim)], copy * self.inputs.table_rows[dim]
            for block in self._blocks(side, dim):
                if block[0] in self.steps:
                    continue
                ids = [columns[lookup.name] for lookup in block]
                if block[0].length is None:
                    by_row = torch.cat(ids).view(len(ids), -1).t()  # [B, F]
                    parts.append(F.embedding(by_row + shift if shift else by_row, table).flatten(1))
                else:
                    rows = F.embedding(ids[0] + shift if shift else ids[0], table)
                    parts.append(pool(rows, ids[0], block[0]))
        return self._join(side, parts, numbers)

    def _blocks(self, side: Side, dim: int) -> list[list[Lookup]]:
        """A side's lookups of one width, in the order of their columns: all single values, then each sequence."""
        chosen = [x for x in self.inputs.ordered(dim) if x.side == side]
        values = [x for x in chosen if x.length is None]
        return ([values] if values else []) + [[x] for x in chosen if x.length is not None]

    def _join(self, side: Side, parts: list[Tensor], numbers: Tensor) -> Tensor:
        encode = self.user_numbers if side == "user" else self.item_numbers
        if encode.width:
            parts = [*parts, encode(numbers)]
        return torch.cat(parts, dim=1) if parts else numbers


def pool(rows: Tensor, ids: Tensor, lookup: Lookup) -> Tensor:
    """Mean over the steps that are not padding: [B, L, D], [B, L] -> [B, D]; an empty sequence is 0.

    A masked mean, not `nn.EmbeddingBag`: that one exports as a loop over the bags. As a batched product it takes
    onnxruntime half the time, and torch twice as long.
    """
    present = (ids > lookup.offset + MISSING_ROW).to(rows.dtype)
    if torch.compiler.is_exporting():
        total = torch.bmm(present.unsqueeze(1), rows).squeeze(1)
    else:
        total = (rows * present.unsqueeze(2)).sum(dim=1)
    return total / present.sum(dim=1, keepdim=True).clamp(min=1.0)
