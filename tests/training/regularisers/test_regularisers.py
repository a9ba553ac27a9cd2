"""What holds for every regulariser of the registry."""

from models.registry import ARCHITECTURES
from training.regularisers.registry import REGULARISERS


def test_every_regulariser_has_an_architecture_to_work_on() -> None:
    for entry in REGULARISERS:
        assert entry.because
        assert any(issubclass(architecture, entry.needs) for architecture in ARCHITECTURES)
