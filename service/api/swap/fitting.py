"""Which model may take the place of which: whoever asks the one must be answered by the other.

Knows manifests. Does not know scorers.
"""

from collections.abc import Mapping

from contract.bundle import Input, Manifest
from contract.errors import SwapRefused
from contract.features import Sequence

REMEDY = "serve a model that takes or answers something else under an address of its own"


def check_fits(old: Manifest, new: Manifest) -> None:
    """Every request that `old` answers, `new` must answer, with all the outputs that `old` has.

    Raises: SwapRefused.
    """
    if new.name != old.name:
        raise SwapRefused(f"a model called {new.name!r}, where {old.name!r} is served", place="name", remedy=REMEDY)
    before, after = _inputs(old), _inputs(new)
    for name, one in before.items():
        if name not in after:
            raise SwapRefused("the new model does not take it", place=f"feature {name!r}", remedy=REMEDY)
        other = after[name]
        if (one.dtype, one.side, len(one.shape)) != (other.dtype, other.side, len(other.shape)):
            raise SwapRefused("the new model takes it in another form", place=f"feature {name!r}", remedy=REMEDY)
    needed = _needed(old)
    for name in sorted(_needed(new) - needed):
        raise SwapRefused("the new model cannot do without it", place=f"feature {name!r}", remedy=REMEDY)
    for name in [output.name for output in old.outputs if output.name not in {output.name for output in new.outputs}]:
        raise SwapRefused("the new model does not answer it", place=f"output {name!r}", remedy=REMEDY)


def _inputs(manifest: Manifest) -> Mapping[str, Input]:
    return {entry.name: entry for entry in manifest.inputs}


def _needed(manifest: Manifest) -> set[str]:
    """Features that a request must give."""
    return {
        feature.name
        for feature in manifest.features
        if not isinstance(feature, Sequence) and feature.missing == "refuse"
    }
