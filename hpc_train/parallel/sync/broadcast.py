"""All ranks start from one rank's state."""

import horovod.tensorflow as hvd
import keras
import numpy as np

from hpc_train.errors import UserError
from hpc_train.parallel.agreement.strategy import refuse_strategy
from hpc_train.parallel.collectives import broadcast_values
from hpc_train.parallel.optimizer import DistributedOptimizer
from hpc_train.parallel.replicas import check_layout, check_replicas
from hpc_train.parallel.unbuilt import leave, when_built
from hpc_train.parallel.variables import everything, is_seed, named_optimizers, seeds

# Odd, so that every rank has a different offset modulo 2^32.
_SEED_STRIDE = 0x9E3779B1


class Broadcast(keras.callbacks.Callback):
    """Start from one rank's weights and optimizer state; make random layers draw different numbers on each rank.

    Args:
        root: that rank.
        local: variables that each rank keeps for itself.
    """

    def __init__(self, root: int = 0, local=()):
        super().__init__()
        self.root, self.local = root, list(local)

    def set_model(self, model):
        super().set_model(model)
        # Horovod's operations cannot be compiled by XLA, and Keras picks XLA by itself where there is a GPU.
        model.jit_compile = False

    def on_train_begin(self, logs=None):
        refuse_strategy(self.model.variables)
        when_built(self.model, self._start)

    def on_train_end(self, logs=None):
        leave(self.model)

    def _start(self) -> None:
        model = self.model
        self.check_optimizers()
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        start_alike(model, self.root, self.local)

    def check_optimizers(self) -> None:
        """Refuse a model whose gradients would stay on their rank.

        Raises:
            UserError: on every rank, naming the optimizer.
        """
        model = self.model
        found = named_optimizers(model)
        plain = [(name, o) for name, o in found if not isinstance(o, DistributedOptimizer)]
        if len(found) > len(plain):
            # A compile() without an optimizer gives RMSprop, which the model's own training step does not use.
            plain = [(name, o) for name, o in plain if o is not model.optimizer]
        # A part of the model may have been compiled for itself; that it is trained by it shows in its weights.
        plain = [(name, o) for name, o in plain if "." not in name.partition("[")[0]]
        if model.trainable_variables and plain:
            name, optimizer = plain[0]
            raise UserError(
                f"the model's {name} is {type(optimizer).__name__}, which averages no gradients over ranks; wrap it in "
                "hpc_train.parallel.DistributedOptimizer (hvd.DistributedOptimizer does the same); where a model has "
                "several optimizers, wrap each"
            ).agreed()


def start_alike(model, root: int = 0, local=()) -> None:
    """Give every rank the root's state, and each rank's random layers a seed of their own. Collective."""
    broadcast_variables(model, root, local)
    for seed in seeds(model):
        seed.assign(rank_seed(np.asarray(seed), hvd.rank()))


def started_alike(model, local=()) -> bool:
    """Whether every rank has rank 0's state, but for `local` variables and the seeds of random layers. Collective."""
    kept = {id(variable) for variable in local}
    try:
        check_replicas([v for v in everything(model) if not (is_seed(v) or id(v) in kept)])
    except UserError:
        return False
    return True


def rank_seed(state: np.ndarray, rank: int) -> np.ndarray:
    """A random layer's state on `rank`, from rank 0's state (2,): a different seed, the same counter."""
    moved = (int(state[0]) + rank * _SEED_STRIDE) % 2**32
    return np.array([moved, state[1]]).astype(state.dtype)


def broadcast_variables(model, root: int = 0, local=()) -> None:
    """Copy the variables of a built model, and of its optimizers, from rank `root` to every rank, but not `local` ones.

    Collective.

    Raises:
        UserError: on every rank, when the model has no variables yet, or the ranks' models differ.
    """
    if not (model.variables or model.built):
        raise UserError(
            f"the model {model.name!r} has no weights yet to broadcast: give it an Input, or call it on a batch or "
            "model.build(shape) before"
        ).agreed()
    refuse_strategy(model.variables)
    kept = {id(variable) for variable in local}
    variables = [variable for variable in everything(model) if id(variable) not in kept]
    check_layout(variables, model._flatten_layers())
    broadcast_values(variables, root)
