"""Transfer learning: a trained trunk under a new head, layers that stay as they are, a rate of its own for the head."""

import difflib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from hpc_train.errors import UserError

HEAD = "logits"


@dataclass(frozen=True)
class TransferOptions:
    """What a trainer begins with, where not with random weights."""

    GROUP = "transfer learning"

    init: Path | None = None
    """Begin with the network and weights of a run (its best model) or of any Keras file, instead of --model. Its head
    is replaced if the number of classes differs."""
    new_head: bool = False
    """With --init: replace the head even if the number of classes is the same."""
    input_range: tuple[float, float] | None = None
    """With --init: scale bytes from 0..255 to this range first, for networks that do not do it themselves: -1 1 for
    keras.applications.MobileNetV2."""
    freeze: tuple[str, ...] = ()
    """With --init: layers that are not trained, as patterns of their names: 'stem*' 'stage1*'; '*' is all layers but
    the head. Frozen batch normalisation keeps its statistics."""
    head_lr: float | None = None
    """Learning rate of the head at the base batch; by default --lr, as for all layers."""

    def multipliers(self, rate: float) -> dict[str, float]:
        """Factors of the learning rate by pattern of variable paths, where `rate` is that of the rest."""
        return {} if self.head_lr is None else {f"{HEAD}/*": self.head_lr / rate}

    def check_transfer(self) -> None:
        """UserError for options that need another one."""
        if self.init is None:
            for name in ("new_head", "input_range", "freeze"):
                if getattr(self, name):
                    raise UserError(f"--{name.replace('_', '-')} is for --init RUN_OR_FILE; give both or leave it out")
        if self.head_lr is not None and not 0 < self.head_lr < math.inf:
            raise UserError(f"--head-lr is {self.head_lr}; it must be above 0")
        if self.head_lr is not None and HEAD in self.freeze:
            raise UserError(f"--head-lr is the rate of the head, which --freeze {HEAD} keeps; leave one of them out")
        if self.input_range and not -math.inf < self.input_range[0] < self.input_range[1] < math.inf:
            raise UserError(
                f"--input-range {' '.join(map(str, self.input_range))}: give the lower value first, both finite"
            )


def build(options: TransferOptions, catalogue):
    """The network of `options.init` for the classes of `catalogue`, frozen as asked, whatever was frozen before.

    Whatever followed the old head (a softmax) is left out. The layers compute in Keras's current dtype policy, and
    draw their random numbers by Keras's current seed.

    Args:
        options: with `init` given.
        catalogue: of the training data, a `data.catalogue.Catalogue`.

    Returns:
        An uncompiled model from samples as stored to float32 logits: (batch, classes), or (batch, height, width,
        classes) where the old one gave maps.

    Raises:
        UserError: no such file, no head in it, samples that it does not take, a pattern that fits no layer.
    """
    import keras
    import numpy as np

    path = options.init
    trained = _renewed(_load(path))
    shape = tuple(trained.input_shape[1:])
    if not _takes(shape, catalogue.input_shape):
        raise UserError(f"{path}: takes samples of {shape}, but the data have {catalogue.input_shape}")
    if not catalogue.classes:
        raise UserError(f"{catalogue.files[0]}: does not say how many classes there are; give --classes")
    if options.input_range and catalogue.input_dtype.name != "uint8":
        raise UserError(f"--input-range is for bytes; the data are {catalogue.input_dtype.name}: leave it out")
    given = "float32" if options.input_range else catalogue.input_dtype
    # Not `.input`: a Sequential model has none.
    old, inputs = _head(trained, path), trained.inputs[0]
    if not np.can_cast(given, inputs.dtype, "same_kind"):
        # Keras would cut off what comes after the point.
        raise UserError(f"{path}: takes samples of {inputs.dtype}, not {np.dtype(given)}; give it data of its type")
    features = old.input
    if options.input_range:
        low, high = options.input_range
        trunk = keras.Model(inputs, features, name="trunk")
        inputs = keras.Input(shape, dtype=catalogue.input_dtype.name)
        features = trunk(keras.layers.Rescaling((high - low) / 255, low, dtype="float32")(inputs))
    maps = len(trained.output_shape) == 4
    if maps and isinstance(old, keras.layers.Conv2D):
        changed = {"filters": catalogue.classes, "activation": None, "dtype": "float32", "name": HEAD}
        new = keras.layers.Conv2D.from_config({**old.get_config(), **changed})
    else:
        new = keras.layers.Dense(catalogue.classes, use_bias=old.use_bias, dtype="float32", name=HEAD)
        # Where the old head was a convolution of one pixel.
        features = features if maps or len(features.shape) == 2 else keras.layers.Flatten()(features)
    model = keras.Model(inputs, new(features), name=trained.name)
    weights = old.get_weights()
    same = len(weights) == len(new.weights) and weights[0].size == math.prod(new.weights[0].shape)
    if same and not options.new_head:
        new.set_weights([value.reshape(variable.shape) for value, variable in zip(weights, new.weights, strict=True)])
    # A file remembers what was frozen; and a model that is trainable already would not pass it on.
    for part in model._flatten_layers():
        part.trainable = True
    freeze(model, options.freeze)
    return model


def freeze(model, patterns: Sequence[str]) -> None:
    """Keep the layers whose names fit one of the patterns from being trained; the head only where it is named.

    Raises:
        UserError: a pattern that fits no layer, or nothing that is left to train.
    """
    for pattern in patterns:
        fits = [layer for layer in layers(model) if fnmatchcase(layer.name, pattern)]
        if pattern != HEAD:
            fits = [layer for layer in fits if layer.name != HEAD]
        if not fits:
            names = [layer.name for layer in layers(model)]
            near = difflib.get_close_matches(pattern, names, 3) or names[:8]
            raise UserError(f"--freeze {pattern}: fits no layer; there are {', '.join(near)}, ...")
        for layer in fits:
            layer.trainable = False
    if not model.trainable_variables:
        raise UserError(f"--freeze {' '.join(patterns)}: leaves no weight to train; leave a layer out of it")


def _load(path: Path):
    import keras

    from hpc_train.training.run_folder import Run

    if path.is_dir():
        run = Run.open(path)
        path = run.best if run.best.exists() else run.model
    if not path.is_file():
        raise UserError(f"--init {path}: does not exist; give a run folder with a saved model, or a .keras file")
    try:
        model = keras.models.load_model(path, compile=False)
    # Keras raises what comes: ValueError, TypeError, KeyError, OSError, zipfile's and h5py's errors.
    except Exception as error:
        # The first sentence: the next ones are about other formats.
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise UserError(f"--init {path}: Keras cannot load it ({type(error).__name__}: {reason})") from error
    if not isinstance(model, keras.Model) or not model.built or not hasattr(model, "inputs"):
        raise UserError(f"--init {path}: has no graph of layers; save a Sequential or functional Keras model")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError(f"--init {path}: has {len(model.inputs)} inputs and {len(model.outputs)} outputs, not one each")
    return model


def _renewed(model):
    """The same weights in new layers, which draw by the seed of now, and compute in the dtype policy of now.

    Layers that prepare raw data keep their own policy.
    """
    import keras

    policy = keras.config.dtype_policy()

    def renew(layer):
        if not isinstance(layer, keras.Layer):
            return layer  # an operation of keras.ops: it computes in what it is given
        kept = {} if _takes_raw_data(layer) else {"dtype": policy.name}
        return type(layer).from_config({**layer.get_config(), **kept})

    renewed = keras.models.clone_model(model, clone_function=renew, recursive=True)
    renewed.set_weights(model.get_weights())
    return renewed


def _takes_raw_data(layer) -> bool:
    # Rescaling, Normalization, RandomFlip, ...: half precision is too coarse for the pixels that they compute with.
    return ".layers.preprocessing." in type(layer).__module__


def _takes(shape: tuple, given: tuple) -> bool:
    """Whether a network whose samples have `shape`, None for any number, takes the `given` ones."""
    return len(shape) == len(given) and all(a in (None, b) for a, b in zip(shape, given, strict=True))


def _head(model, path: Path):
    """The last layer with weights."""
    import keras

    head = next((layer for layer in reversed(model.layers) if layer.weights), None)
    if not isinstance(head, (keras.layers.Dense, keras.layers.Conv2D)):
        kind = type(head).__name__ if head else "nothing"
        raise UserError(f"--init {path}: its last layer with weights is {kind}, not a Dense or Conv2D head to replace")
    return head


def layers(model) -> Iterator:
    """The layers of a model and of the models in it, without the models."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from layers(layer)
        else:
            yield layer
