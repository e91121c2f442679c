"""Elastic training under Horovod's names: state that is committed, restored, and sent to ranks that join.

`hvd.elastic.run` calls a function again whenever ranks have left or joined. The ranks then go on from a state:
committed in memory by each rank, restored after a failure, and broadcast by the new rank 0, which is an old rank.
"""

import functools
import re
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf
from horovod.common.elastic import ObjectState, run_fn
from horovod.common.exceptions import HorovodInternalError

from hpc_train.errors import UserError
from hpc_train.parallel.horovod_names.elastic_callbacks import (
    CommitStateCallback,
    UpdateBatchStateCallback,
    UpdateEpochStateCallback,
)
from hpc_train.parallel.variables import is_seed, optimizers

__all__ = [
    "CommitStateCallback",
    "KerasState",
    "TensorFlowKerasState",
    "TensorFlowState",
    "UpdateBatchStateCallback",
    "UpdateEpochStateCallback",
    "run",
]

# What every waiting operation reports when the connection to a rank has broken.
_SHUT_DOWN = "Horovod has been shut down"
# The operation in which it broke reports the transport's own words; TensorFlow adds where it was called.
_OPERATION = re.compile(r"\[Op:Horovod|in horovod_[a-z_]+$|/gloo/|NCCL", re.MULTILINE)


def run(func):
    """Make `func(state, ...)` go on from the state's last commit when ranks leave or join.

    Nothing before the call of the decorated function may be a collective operation: a rank that joins would wait in it
    for ranks that are long past it.

    Args:
        func: the training; its first argument is a state of this module.

    Returns:
        A function with the same arguments and the same result.
    """

    @functools.wraps(func)
    def attempt(state, *args, **kwargs):
        with _lost_ranks():
            return func(state, *args, **kwargs)

    return run_fn(attempt, _restart)


def lost_rank(error: Exception) -> bool:
    """Whether an operation failed because another rank has gone."""
    if not isinstance(error, tf.errors.OpError):
        return False
    text = str(error)
    return _SHUT_DOWN in text or (isinstance(error, tf.errors.UnknownError) and bool(_OPERATION.search(text)))


@contextmanager
def _lost_ranks():
    try:
        yield
    except tf.errors.OpError as error:
        if lost_rank(error):
            raise HorovodInternalError(str(error)) from error
        raise


def _restart() -> None:
    from horovod.tensorflow.mpi_ops import shutdown

    from hpc_train.parallel.horovod_names.start import init

    shutdown()
    init()


def _rank() -> int:
    from horovod.tensorflow.mpi_ops import rank

    return rank()


def _broadcast_object(value):
    from horovod.tensorflow.functions import broadcast_object

    with _lost_ranks(), tf.device("/cpu:0"):
        return broadcast_object(value, root_rank=0)


class _VariablesState(ObjectState):
    """Attributes and variables that are saved, restored and broadcast together.

    Args:
        attributes: start values of the attributes, by name; anything that pickles.
    """

    def __init__(self, **attributes):
        super().__init__(bcast_object=_broadcast_object, get_rank=_rank, **attributes)
        self._copies: list = []
        self._copy()

    def _variables(self) -> list:
        """Variables to keep, Keras's or TensorFlow's."""
        raise NotImplementedError

    def _copy(self) -> None:
        # On the CPU: a second copy of the optimizer's state may be more than a GPU has room for.
        with tf.device("/cpu:0"):
            self._copies = [(variable, tf.identity(plain(variable))) for variable in self._variables()]

    def save(self) -> None:
        """Keep the attributes and variables as they are now, in this rank's memory."""
        self._copy()
        super().save()

    def restore(self) -> None:
        """Go back to what was last saved."""
        saved = {id(variable) for variable, _ in self._copies}
        for variable in self._variables():
            if id(variable) not in saved:
                raise UserError(
                    f"{getattr(variable, 'path', variable.name)} was made after the last commit, which cannot restore "
                    "it: build the model and its layers before the elastic state"
                ).agreed()
        for variable, value in self._copies:
            variable.assign(value)
        super().restore()

    def sync(self) -> None:
        """Take over rank 0's attributes and variables, and save them. Collective.

        Raises:
            UserError: on every rank, when the ranks' variables differ in number, shape or type.
        """
        variables = self._variables()
        with _lost_ranks():
            _check_same(variables)
            _broadcast(variables)
        super().sync()
        self._copy()


def plain(variable):
    """TensorFlow's own variable of a Keras variable; others as they are."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def _check_same(variables) -> None:
    from horovod.tensorflow.mpi_ops import size

    from hpc_train.parallel.collectives import equal_on_all_ranks

    if size() == 1:
        return
    # Names may differ: Keras numbers layers anew in each process.
    mine = repr([(tuple(variable.shape), tf.as_dtype(variable.dtype).name) for variable in variables])
    if not equal_on_all_ranks(mine.encode(), "hpc_train.elastic.layout"):
        raise UserError(
            "the elastic states of the ranks hold different variables: make the model and the optimizer the same way "
            "on every rank, before the state"
        ).agreed()


def _broadcast(variables) -> None:
    from horovod.tensorflow.functions import broadcast_variables
    from horovod.tensorflow.mpi_ops import rank, size

    from hpc_train.parallel.sync.broadcast import rank_seed

    if size() == 1 or not variables:
        return
    broadcast_variables([plain(variable) for variable in variables], root_rank=0)
    for variable in variables:
        if isinstance(variable, keras.Variable) and is_seed(variable):
            variable.assign(rank_seed(np.asarray(variable), rank()))


class TensorFlowState(_VariablesState):
    """A list of variables, with other attributes.

    Args:
        variables: TensorFlow or Keras variables, in the same order on every rank.
        session: TensorFlow 1's; must be None.
        attributes: start values of further attributes, such as `batch=0, epoch=0`.

    Raises:
        UserError: there are no variables, or a session is given.
    """

    def __init__(self, variables=None, session=None, **attributes):
        if session is not None:
            raise UserError("TensorFlowState works without a session: leave out session=, and run eagerly")
        self.variables = list(variables if variables is not None else tf.compat.v1.global_variables())
        if not self.variables:
            raise UserError(
                "TensorFlowState found no variables, so nothing would be restored: give it variables=, such as "
                "[*model.variables, *optimizer.variables]"
            )
        super().__init__(**attributes)

    def _variables(self) -> list:
        return self.variables


class TensorFlowKerasState(_VariablesState):
    """A Keras model and its optimizer, with other attributes.

    The optimizer is built here, so that all of its variables are there to be sent to a rank that joins. When ranks have
    left or joined, the model's compiled functions are made anew: the old ones may hold the old number of ranks.

    Args:
        model: a built Keras model.
        optimizer: its optimizer; None for the one the model is compiled with.
        backend: not used; Keras 3 has no sessions.
        attributes: start values of further attributes, such as `batch=0, epoch=0`.

    Raises:
        UserError: the model is not built, or there is no optimizer.
    """

    def __init__(self, model, optimizer=None, backend=None, **attributes):
        if not model.built:
            raise UserError(
                f"model {model.name!r} has no weights yet, which the elastic state must hold: give it an Input layer, "
                "or call model.build(input_shape) first"
            )
        if optimizer is None and not optimizers(model):
            raise UserError(
                f"model {model.name!r} has no optimizer, whose state would be lost: compile the model before the "
                "elastic state is made, or give the state optimizer="
            )
        self.model = model
        self._own_optimizer = optimizer
        attributes.setdefault("_progress", None)
        super().__init__(**attributes)

    @property
    def optimizer(self):
        """The optimizer given, or the one the model is compiled with now."""
        return self._own_optimizer if self._own_optimizer is not None else getattr(self.model, "optimizer", None)

    def _optimizers(self) -> list:
        """The optimizer, and those that a model with a training step of its own holds."""
        every = [self.optimizer, *optimizers(self.model)]
        return list({id(optimizer): optimizer for optimizer in every if optimizer is not None}.values())

    def _variables(self) -> list:
        variables = list(self.model.variables)
        for optimizer in self._optimizers():
            self._build(optimizer)
            variables += optimizer.variables
            if passes := _passes(optimizer):
                variables += [passes.counter, *passes.sums(optimizer._trainable_variables)]
        return list({id(variable): variable for variable in variables}.values())

    def _build(self, optimizer) -> None:
        if optimizer.built:
            return
        if optimizer is not self.optimizer:
            raise UserError(
                f"{optimizer.name}, an optimizer of model {self.model.name!r}, has no variables yet, which the elastic "
                "state must hold: call its build(variables) first, with the variables that it trains"
            ).agreed()
        with keras.name_scope(optimizer.name):
            optimizer.build(list(self.model.trainable_variables))

    def commit(self) -> None:
        """Save, then end the attempt if the hosts have changed. Collective.

        Raises:
            HostsUpdatedInterrupt: ranks are to leave or join; `run` starts the next attempt.
        """
        # Gradients that wait in an optimizer differ between ranks, but a rank that joins can have only one set of them.
        with _lost_ranks():
            for optimizer in self._optimizers():
                if hasattr(optimizer, "average_waiting"):
                    optimizer.average_waiting()
                if passes := _passes(optimizer):
                    passes.average(optimizer._trainable_variables, optimizer.process_set)
        super().commit()

    def reset(self) -> None:
        """Forget the compiled functions; called when Horovod has been started again."""
        self.__dict__.pop("_trackers", None)
        for part in (self.model, *self.model._flatten_layers(include_self=False)):
            if isinstance(part, keras.Model):
                part.train_function = part.test_function = part.predict_function = None
        super().reset()


def _passes(optimizer):
    """The sums of gradients of `backward_passes_per_step`; None without."""
    return getattr(getattr(optimizer, "_state", None), "passes", None)


class KerasState(TensorFlowKerasState):
    """A Keras model and its optimizer, with other attributes: see `TensorFlowKerasState`.

    Args:
        model: a built Keras model.
        optimizer: its optimizer; None for the one the model is compiled with.
        attributes: start values of further attributes, such as `batch=0, epoch=0`.
    """

    def __init__(self, model, optimizer=None, **attributes):
        super().__init__(model, optimizer=optimizer, **attributes)
