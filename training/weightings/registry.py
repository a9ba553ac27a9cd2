"""The weightings there are. A new one is a file of its own and a line here."""

from training.weightings.fixed import Fixed
from training.weightings.pcgrad import PCGrad
from training.weightings.uncertainty import Uncertainty
from training.weightings.weighting import Weighting

WEIGHTINGS: tuple[type[Weighting], ...] = (Fixed, Uncertainty, PCGrad)
