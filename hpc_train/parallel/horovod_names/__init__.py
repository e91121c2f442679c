"""Horovod's own Keras names, for Keras 3: what `import horovod.tensorflow.keras as hvd` gives.

The wheel that `hpc-train build-horovod` makes imports its Keras modules from here (`horovod_build.names`). They are
thin: gradients, metrics and equal replicas are those of `hpc_train.parallel`.
"""
