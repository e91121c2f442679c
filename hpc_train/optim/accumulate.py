"""Gradient accumulation inside a step: large batches in little memory, with one all-reduce for each step."""

import tensorflow as tf

from hpc_train.errors import UserError


def accumulate(model, parts: int) -> None:
    """Let `model` take each training batch in `parts` micro-batches, and apply their mean gradient once.

    The model's own `train_step` runs on one micro-batch after the other, with the memory of one; the gradients are
    averaged over the ranks once in each step. The result is a step on the whole batch, except for layers that use the
    statistics of their batch: batch normalisation sees micro-batches, and updates its statistics with each of them
    (Goyal et al. 2017, section 3). Loss and metrics count every sample. With a loss scale, an overflow in any
    micro-batch skips the step. Sparse gradients become dense.

    Args:
        model: compiled with a `parallel.DistributedOptimizer`, not trained yet.
        parts: number of micro-batches in a step.

    Raises:
        UserError: in the first step, if the size of the batch is unknown or not a multiple of `parts`.
    """
    if parts == 1:
        return
    step_on_part = model.train_step

    def train_step(data):
        optimizer, variables = model.optimizer, model.trainable_variables
        optimizer.build_for(variables)
        size = _micro_batch(data, parts)
        has_gradient = [False] * len(variables)

        def body(part, *sums):
            with optimizer.collecting() as collected:
                step_on_part(tf.nest.map_structure(lambda tensor: _slice(tensor, part, size), data))
            grads = dict(zip(map(id, collected.variables), collected.grads, strict=True))
            grads = [grads.get(id(variable)) for variable in variables]
            has_gradient[:] = [grad is not None for grad in grads]
            added = [s if g is None else s + tf.convert_to_tensor(g) for s, g in zip(sums, grads, strict=True)]
            return part + 1, *added

        zeros = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
        # One iteration at a time: parallel iterations would need more memory.
        _, *sums = tf.while_loop(lambda part, *_: part < parts, body, [tf.constant(0), *zeros], parallel_iterations=1)
        means = [s / parts if has else None for s, has in zip(sums, has_gradient, strict=True)]
        if any(has_gradient):
            optimizer.apply(means, variables)
        return model.get_metrics_result()

    model.train_step = train_step


def _micro_batch(data, parts: int) -> int:
    sizes = {tensor.shape[0] for tensor in tf.nest.flatten(data) if tensor is not None}
    if None in sizes:
        raise UserError("accumulation needs batches of one fixed size: leave out the short last one (drop_remainder)")
    batch = sizes.pop()
    if batch % parts:
        raise UserError(f"a batch of {batch} cannot be split into {parts} equal parts; choose a multiple of {parts}")
    return batch // parts


def _slice(tensor, part, size: int):
    if tensor is None:
        return None
    return tf.ensure_shape(tensor[part * size : (part + 1) * size], [size, *tensor.shape[1:]])
