"""A model of the time of a training step: computation, the slowest of N ranks, and the all-reduces that are not hidden.

    step(N) = computation + spread(N) + overhead + exposed all-reduce(N)

`network` has the cost of an all-reduce, `job` the part of it that makes a step longer, `spread` the slowest of N ranks.
`fitted` finds the constants from the measurements of a study, and `published` takes them from papers.
"""

from hpc_train.bench.step_model.fitted import Fitted, fit_study

__all__ = ["Fitted", "fit_study"]
