"""The architectures there are. A new one is a file of its own and a line here."""

from models.architecture import Architecture, Options
from models.branching import Branching
from models.cross_stitch import CrossStitch
from models.dupn import DUPN
from models.joint_many_task import JointManyTask
from models.layers import Widths
from models.mmoe import MMoE
from models.ple import PLE
from models.separate_towers import SeparateTowers
from models.shared_bottom import SharedBottom
from models.sluice import Sluice
from models.soft_sharing import SoftSharing

ARCHITECTURES: tuple[type[Architecture], ...] = (
    SharedBottom,
    SeparateTowers,
    MMoE,
    PLE,
    DUPN,
    SoftSharing,
    Branching,
    CrossStitch,
    Sluice,
    JointManyTask,
)


def architecture_name(architecture: type[Architecture]) -> str:
    """The name by which a run file asks for it."""
    return str(architecture.options_type.model_fields["architecture"].default)


def build_architecture(options: Options, widths: Widths, tasks: int) -> Architecture:
    """The body that `options` describe."""
    build = next(entry for entry in ARCHITECTURES if entry.options_type is type(options))
    return build(options, widths, tasks)
