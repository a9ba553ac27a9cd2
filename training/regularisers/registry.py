"""The regularisers there are. A new one is a file of its own and a line here."""

from training.regularisers.distance import Distance
from training.regularisers.orthogonality import Orthogonality
from training.regularisers.regulariser import Regulariser
from training.regularisers.tensor_normal import TensorNormal

REGULARISERS: tuple[type[Regulariser], ...] = (Distance, TensorNormal, Orthogonality)
