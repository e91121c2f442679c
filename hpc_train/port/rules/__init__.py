"""What is done to a script, by subject; each module has `apply`, which adds its changes to those of the script."""

from hpc_train.port.rules import (
    callbacks,
    files,
    imports,
    layers,
    learning_rate,
    metric_names,
    optimizers,
    precision,
    sessions,
    tensorflow1,
    training,
)

# Where two meet, the earlier one wins. `imports` is the last: it looks at what is left.
ALL = (
    sessions,
    learning_rate,
    optimizers,
    precision,
    training,
    callbacks,
    files,
    metric_names,
    layers,
    tensorflow1,
    imports,
)
