"""Checks that the replicas are equal: the same variables on every rank, and in them the same bits."""

import contextlib
import hashlib
import json

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel.collectives import broadcast_object, equal_on_all_ranks, gather_objects
from hpc_train.parallel.variables import descriptions, named
from hpc_train.parallel.wire import alone

_MAY_DIFFER = ("name", "seed", "batch_shape", "build_config", "initializer")
_INTEGER_OF_SIZE = {1: tf.uint8, 2: tf.uint16, 4: tf.uint32, 8: tf.int64}
# What the device itself can add up; the bytes of other dtypes (complex128, float8, strings) go through the CPU.
_ON_DEVICE = (
    *(tf.bool, tf.int8, tf.uint8, tf.int16, tf.uint16, tf.int32, tf.uint32, tf.int64),
    *(tf.float16, tf.bfloat16, tf.float32, tf.float64),
)


@tf.function(reduce_retracing=True)
def _checksum(value):
    if value.dtype == tf.bool:
        value = tf.cast(value, tf.uint8)
    bits = tf.cast(tf.reshape(tf.bitcast(value, _INTEGER_OF_SIZE[value.dtype.size]), [-1]), tf.int64)
    # Each place has its own odd weight: swapped or shifted elements change the sum too.
    places = tf.range(tf.size(bits, tf.int64), dtype=tf.int64)
    return tf.reduce_sum(bits * (2 * places + 1))


def checksums(variables) -> np.ndarray:
    """One int64 a variable of any dtype, from all of its bits, on the device that holds it where that can."""
    return np.array([_checksum_of(variable) for variable in variables], "int64")


def _checksum_of(variable) -> int:
    value = tf.convert_to_tensor(variable.value)
    if value.dtype in _ON_DEVICE:
        return int(_checksum(value))
    array = value.numpy()
    content = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=7).digest(), "big")


def check_layout(variables, layers=()) -> None:
    """Make sure that every rank built the same model. Collective.

    Args:
        variables: Keras variables, in this rank's order.
        layers: of the model; their classes and configurations must be the same too, in this order, but for names,
            seeds, initializers and the sizes of batches.

    Raises:
        UserError: on every rank, naming the first variable or layer that differs, where, and how.
    """
    if hvd.size() == 1:
        return
    mine = [[{"": text} for text in descriptions(variables)], [_settings(layer) for layer in layers]]
    if equal_on_all_ranks(repr(mine).encode(), "hpc_train.layout"):
        return
    root = broadcast_object(mine, name="hpc_train.layout.root")
    for part, kind in enumerate(("variable", "layer")):
        differences = gather_objects(_first_difference(root[part], mine[part]), f"hpc_train.layout.{kind}")
        rank = next((rank for rank, difference in enumerate(differences) if difference), None)
        if rank is not None:
            place, ours, theirs = differences[rank]
            raise UserError(
                f"the ranks built different models: {kind} {place + 1} is {ours} on rank 0 and {theirs} on rank "
                f"{rank}; make the model the same way on every rank"
            ).agreed()


def _first_difference(root: list[dict], mine: list[dict]) -> tuple[int, str, str] | None:
    for place in range(max(len(root), len(mine))):
        ours, theirs = ((part[place : place + 1] or [{"": "missing"}])[0] for part in (root, mine))
        if ours != theirs:
            # The class, "", comes first.
            key = min(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
            said = [of[""] + (f" with {key}={of.get(key, 'nothing')[:80]}" if key else "") for of in (ours, theirs)]
            return place, said[0], said[1]
    return None


def _settings(layer) -> dict[str, str]:
    """A layer's class, as "", and its configuration in JSON; a model's is that of its layers."""
    config: dict = {}
    if not getattr(layer, "layers", None):
        # A layer of one's own need not have one.
        with contextlib.suppress(Exception):
            config = _without_names(layer.get_config())
    values = {key: json.dumps(value, default=lambda v: type(v).__name__) for key, value in config.items()}
    return {"": type(layer).__name__, **values}


def _without_names(config):
    """A configuration without what may differ: names, which Keras numbers, first values, seeds, sizes of batches."""
    if isinstance(config, (list, tuple)):
        return [_without_names(value) for value in config]
    if not isinstance(config, dict) or str(config.get("class_name")).endswith("DTypePolicy"):
        return config
    return {str(key): _without_names(value) for key, value in config.items() if not str(key).endswith(_MAY_DIFFER)}


def check_replicas(variables, where: str = "", ranks: hvd.ProcessSet = hvd.global_process_set, why: str = "") -> None:
    """Make sure that `variables` have the same bits on every rank. Collective.

    Args:
        variables: Keras variables, in the same order on every rank.
        where: when this happens, for the message: "after step 500".
        ranks: those that hold replicas; others return at once.
        why: what the user should look for.

    Raises:
        UserError: on every rank, naming the variables that differ and how many ranks differ from rank 0.
    """
    if alone(ranks):
        return
    mine = checksums(variables)
    if equal_on_all_ranks(repr(descriptions(variables)).encode() + mine.tobytes(), "hpc_train.replicas", ranks):
        return
    if ranks is hvd.global_process_set:
        check_layout(variables)
    with tf.device("/cpu:0"):
        first = (ranks.ranks or [0])[0]
        root = hvd.broadcast(tf.constant(mine), first, name="hpc_train.replicas.root", process_set=ranks).numpy()
        differs = tf.constant((mine != root).astype("int64"))
        counts = hvd.allreduce(differs, op=hvd.Sum, name="hpc_train.replicas.differ", process_set=ranks).numpy()
    wrong = [(name, v, n) for (name, v), n in zip(named(variables), counts, strict=True) if n]
    texts = [f"{name} on {n} of {ranks.size()} ranks" for name, _, n in wrong]
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    raise UserError(
        f"the replicas differ from rank {first} {where}: {', '.join(texts[:5])}{more}; "
        f"{why or _likely([v for _, v, _ in wrong])}"
    ).agreed()


def _likely(variables) -> str:
    """What makes these variables differ, most often."""
    if not any("float" in v.dtype or "complex" in v.dtype for v in variables):
        return (
            "each rank counts there what it sees itself: keep it outside the model, or add it up over the ranks in "
            "every step"
        )
    return "some code changes weights on one rank alone, or gradients are not averaged"
