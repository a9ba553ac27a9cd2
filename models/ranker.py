"""The whole network: embeddings, then an architecture, to one logit of P(task | given) per task.

Knows how the parts join. Does not know losses, calibration or files.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from models.architecture import Options, Particular
from models.embeddings import Embeddings
from models.inputs import Encoded, Inputs
from models.layers import Pair
from models.registry import build_architecture


class Ranker(nn.Module):
    """`look_up` and `score` are apart so that training can update only the rows that a batch touches."""

    def __init__(self, inputs: Inputs, options: Options, tasks: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(inputs, options.copies(tasks), steps=options.steps)
        self.architecture = build_architecture(options, self.embeddings.widths, tasks)

    def score(self, encoded: Encoded, rows: Mapping[int, Tensor]) -> Tensor:
        """Rows with their own users -> logits [B, T]."""
        logits: Tensor = self.architecture(self.pair(encoded, rows))
        return logits

    def pair(self, encoded: Encoded, rows: Mapping[int, Tensor]) -> Pair:
        """What the architecture reads of rows with their own users."""
        return self.embeddings.from_rows(encoded, rows)

    def look_up(self, encoded: Encoded) -> dict[int, Tensor]:
        """The rows of the tables that `encoded` names."""
        return self.embeddings.look_up(self.embeddings.row_ids(encoded.ids))

    def tell(self, encoded: Encoded, tasks: Sequence[str]) -> tuple[Particular, ...]:
        """What the architecture has to say of itself on these rows."""
        return self.architecture.tell(self.pair(encoded, self.look_up(encoded)), tasks)

    def forward(self, encoded: Encoded) -> Tensor:
        """Rows with their own users -> logits [B, T]."""
        return self.score(encoded, self.look_up(encoded))

    def rank(
        self, columns: Mapping[str, Tensor], user_numbers: Tensor, item_numbers: Tensor, row_user: Tensor | None
    ) -> Tensor:
        """U users and N candidates, each feature's table rows by name -> logits [N, T]."""
        user = self.embeddings.from_columns("user", columns, user_numbers)
        item = self.embeddings.from_columns("item", columns, item_numbers)
        steps = self.embeddings.steps_from_columns(columns)
        logits: Tensor = self.architecture(Pair(user, item, row_user, steps))
        return logits
