"""What a checkpoint holds, as a copy in host memory: the training goes on while it is written."""

import json
import math
from dataclasses import asdict, dataclass, field

import numpy as np

from hpc_train.parallel.variables import everything, is_seed, named


@dataclass
class Progress:
    """How far a training is; no value depends on the number of ranks.

    Args:
        epoch: completed epochs.
        position: samples of the current epoch that all ranks together have consumed.
        step: steps made since the start of the run.
        callbacks: what callbacks remember from epoch to epoch (best value, patience), by name.
        metrics: metric states of the current epoch, summed over the ranks.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    callbacks: dict = field(default_factory=dict)
    metrics: list = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """A rank's part of the checkpoints of one start.

    Args:
        number: of the part; None for a rank that writes none.
        of: how many parts a checkpoint has.
        token: of this start, six hexadecimal digits: parts of another start are never taken for its own.
    """

    number: int | None = 0
    of: int = 1
    token: str = ""


@dataclass(frozen=True)
class State:
    """The copy of one part.

    Args:
        step: of the checkpoint.
        part: which part it is.
        progress: as JSON; empty except in part 0.
        metrics: of the progress, likewise.
        variables: names and values, by their numbers among all variables.
    """

    step: int
    part: Part
    progress: str
    metrics: list[np.ndarray]
    variables: dict[int, tuple[str, np.ndarray]]

    @property
    def bytes(self) -> int:
        """Of all arrays."""
        return sum(array.nbytes for array in (*self.metrics, *(value for _, value in self.variables.values())))


def copy(model, progress: Progress, part: Part, room: State | None = None) -> State:
    """Copy a part of the state; later steps do not change the copy.

    Random layers' states are those of rank 0; other ranks derive theirs when they resume.

    Args:
        model: with its optimizer.
        progress: of the training.
        part: which one; its number is not None.
        room: an earlier copy of the same part, whose memory is taken: new memory takes twice as long as the copying.
    """
    variables, first = named(everything(model)), part.number == 0
    earlier = room.variables if room else {}
    owners = deal([variable for _, variable in variables], part.of)
    return State(
        progress.step,
        part,
        json.dumps({**asdict(progress), "metrics": []}) if first else "",
        [np.array(state, order="C") for state in progress.metrics] if first else [],
        {
            i: (name, _copy(variable, earlier[i][1] if i in earlier else None))
            for i, (name, variable) in enumerate(variables)
            if owners[i] == part.number
        },
    )


def deal(variables: list, parts: int) -> list[int]:
    """The part of each variable: neighbours, about as many bytes in each part; random states, of rank 0, in part 0."""
    sizes = [0 if is_seed(variable) else _bytes(variable) for variable in variables]
    total, before, owners = max(1, sum(sizes)), 0, []
    for size in sizes:
        owners.append(parts * (2 * before + size) // (2 * total) if size else 0)
        before += size
    return owners


def state_bytes(model) -> int:
    """Bytes of all variables of a model and its optimizer."""
    return sum(_bytes(variable) for variable in everything(model))


def _bytes(variable) -> int:
    import tensorflow as tf

    return math.prod(variable.shape) * tf.as_dtype(variable.dtype).size


def _copy(variable, room: np.ndarray | None) -> np.ndarray:
    import tensorflow as tf

    tensor = tf.convert_to_tensor(variable)
    # Of a tensor in host memory this is the memory of TensorFlow itself; NumPy refuses single values in bfloat16.
    value = np.asarray(tensor if tensor.shape.rank else tensor.numpy())
    if room is None:
        return np.array(value, order="C")
    np.copyto(room, value)
    return room
