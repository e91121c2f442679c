"""Callbacks that keep the ranks of a Keras `fit` one model."""

import keras

from hpc_train.parallel.metrics import ExactMetrics
from hpc_train.parallel.sync.broadcast import Broadcast, broadcast_variables
from hpc_train.parallel.sync.equal import EqualReplicas
from hpc_train.parallel.sync.local_state import AverageStatistics, average_local_state
from hpc_train.parallel.sync.samples_seen import SamplesSeen
from hpc_train.parallel.sync.slow import SlowRanks
from hpc_train.parallel.sync.stops import StopTogether
from hpc_train.watch.callback import Phases

__all__ = [
    "AverageStatistics",
    "Broadcast",
    "EqualReplicas",
    "SamplesSeen",
    "SlowRanks",
    "StopTogether",
    "average_local_state",
    "broadcast_variables",
    "callbacks",
]


def callbacks(
    check_every: int = 500,
    validation_steps: int | None = None,
    local_state: str = "average",
    check_samples: bool = True,
    say_slow: bool = True,
) -> list[keras.callbacks.Callback]:
    """The callbacks that every distributed `fit` needs.

    Args:
        check_every: steps between two checks that replicas are equal; 0 checks at the end only.
        validation_steps: see `ExactMetrics`.
        local_state: see `AverageStatistics`.
        check_samples: warn after the first epoch where ranks have seen the same samples; see `SamplesSeen`.
        say_slow: print after an epoch which ranks the others wait for; see `SlowRanks`.
    """
    exact: list[keras.callbacks.Callback] = [
        ExactMetrics(validation_steps),
        Broadcast(),
        AverageStatistics(local_state),
        EqualReplicas(check_every),
    ]
    exact += [SlowRanks(say_slow), *([SamplesSeen()] if check_samples else [])]
    phases = Phases()
    return [phases, StopTogether([phases, *exact]), *exact]
