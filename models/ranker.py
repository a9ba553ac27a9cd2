"""The whole network: embeddings, then an architecture, to one logit of P(task | given) per task.

Knows how the parts join. Does not know losses, calibration or files.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from models.architecture import Options
from models.embeddings import Embeddings
from models.inputs import Encoded, Inputs
from models.layers import Pair
from models.registry import build_architecture


class Ranker(nn.Module):
    """`look_up` and `score` are apart so that training can update only the rows that a batch touches."""

    def __init__(self, inputs: Inputs, options: Options, tasks: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(inputs)
        self.architecture = build_architecture(options, self.embeddings.widths, tasks)

    def score(self, encoded: Encoded, rows: Mapping[int, Tensor]) -> Tensor:
        """Rows with their own users -> logits [B, T]."""
        user, item = self.embeddings.from_rows(encoded, rows)
        logits: Tensor = self.architecture(Pair(user, item, None))
        return logits

    def forward(self, encoded: Encoded) -> Tensor:
        """Rows with their own users -> logits [B, T]."""
        return self.score(encoded, self.embeddings.look_up(encoded.ids))

    def rank(
        self, columns: Mapping[str, Tensor], user_numbers: Tensor, item_numbers: Tensor, row_user: Tensor | None
    ) -> Tensor:
        """U users and N candidates, each feature's table rows by name -> logits [N, T]."""
        user = self.embeddings.from_columns("user", columns, user_numbers)
        item = self.embeddings.from_columns("item", columns, item_numbers)
        logits: Tensor = self.architecture(Pair(user, item, row_user))
        return logits
