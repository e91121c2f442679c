"""What the segmentation networks share: a preset by its name, and a look at what they are given."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from keras import KerasTensor

from hpc_train.errors import UserError

_Preset = TypeVar("_Preset")


def choose(name: str, family: Mapping[str, _Preset]) -> _Preset:
    """The preset of a network; UserError for a name that is not in the family."""
    if name in family:
        return family[name]
    nearest = difflib.get_close_matches(name, family, 1)
    raise UserError(
        f"there is no network {name!r}{f'; did you mean {nearest[0]}?' if nearest else ''}; there are "
        f"{', '.join(family)}"
    )


def check_maps(name: str, inputs: KerasTensor, x: KerasTensor, classes: int) -> None:
    """UserError unless x is (batch, height, width, channels) and there are two classes or more."""
    if len(x.shape) != 4:
        raise UserError(
            f"{name} takes maps (height, width, channels), a label for each pixel; the data have "
            f"{tuple(inputs.shape[1:])}"
        )
    if classes < 2:
        raise UserError(f"{name} tells two classes or more apart; there {'is' if classes == 1 else 'are'} {classes}")
