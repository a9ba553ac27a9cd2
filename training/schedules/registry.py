"""The schedules there are. A new one is a file of its own and a line here."""

from training.schedules.grown import Grown
from training.schedules.joint import Joint
from training.schedules.schedule import Schedule
from training.schedules.staged import Staged

SCHEDULES: tuple[type[Schedule], ...] = (Joint, Grown, Staged)
