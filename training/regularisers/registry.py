"""The regularisers there are. A new one is a file of its own and a line here."""

from training.regularisers.regulariser import Regulariser

REGULARISERS: tuple[type[Regulariser], ...] = ()
