"""Transfer learning: a trained trunk under a new head, frozen layers, and a learning rate for the head."""

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
        """Factors of the learning rate `rate`, by pattern of the variables' paths."""
        return {} if self.head_lr is None else {f"{HEAD}/*": self.head_lr / rate}

    def check_transfer(self) -> None:
        """Check the options for impossible values and combinations.

        Raises:
            UserError: names the first one found.
        """
        if self.init is None:
            for name in ("new_head", "input_range", "freeze"):
                if getattr(self, name):
                    raise UserError(f"--{name.replace('_', '-')} is for --init RUN_OR_FILE; give both or leave it out")
        if self.head_lr is not None and not 0 < self.head_lr < math.inf:
            raise UserError(f"--head-lr is {self.head_lr}; it must be above 0")
        if self.head_lr is not None and HEAD in self.freeze:
            raise UserError(
                f"--head-lr is for training the head, and --freeze {HEAD} freezes it; leave one of them out"
            )
        if self.input_range and not -math.inf < self.input_range[0] < self.input_range[1] < math.inf:
            raise UserError(
                f"--input-range {' '.join(map(str, self.input_range))}: give the lower value first, both finite"
            )


def build(options: TransferOptions, catalogue):
    """The network of `options.init` with a head for the classes of `catalogue`.

    Only the layers of `options.freeze` are frozen, whatever was frozen before. What follows the old head (a softmax) is
    left out. The layers compute in Keras's current dtype policy, and draw random numbers by Keras's current seed.

    Args:
        options: with `init` given.
        catalogue: of the training data, a `data.catalogue.Catalogue`.

    Returns:
        An uncompiled model from samples as stored to float32 logits: (batch, classes), or (batch, height, width,
        classes) where the old one gave maps.

    Raises:
        UserError: the file is missing or has no head, it does not take the samples, or a pattern fits no layer.
    """
    import keras

    path = options.init
    assert path is not None
    trained = _renewed(_load(path))
    _check_samples(options, trained, catalogue)
    # Not `.input`: a Sequential model has none.
    old, inputs = _head(trained, path), trained.inputs[0]
    features = old.input
    if options.input_range:
        low, high = options.input_range
        trunk = keras.Model(inputs, features, name="trunk")
        inputs = keras.Input(trained.input_shape[1:], dtype=catalogue.input_dtype.name)
        features = trunk(keras.layers.Rescaling((high - low) / 255, low, dtype="float32")(inputs))
    new, logits = _new_head(old, features, catalogue.classes, len(trained.output_shape) == 4)
    model = keras.Model(inputs, logits, name=trained.name)
    weights = old.get_weights()
    same = len(weights) == len(new.weights) and weights[0].size == math.prod(new.weights[0].shape)
    if same and not options.new_head:
        new.set_weights([value.reshape(variable.shape) for value, variable in zip(weights, new.weights, strict=True)])
    # A file stores what was frozen; and a model that is already trainable would not make its layers trainable.
    for part in model._flatten_layers():
        part.trainable = True
    freeze(model, options.freeze)
    return model


def _check_samples(options: TransferOptions, trained, catalogue) -> None:
    """Check that the trained network takes the samples of the catalogue."""
    import numpy as np

    path, shape = options.init, tuple(trained.input_shape[1:])
    if not _takes(shape, catalogue.input_shape):
        raise UserError(f"{path}: takes samples of {shape}, but the data have {catalogue.input_shape}")
    if not catalogue.classes:
        raise UserError(f"{catalogue.files[0]}: does not say how many classes there are; give --classes")
    if options.input_range and catalogue.input_dtype.name != "uint8":
        raise UserError(f"--input-range is for bytes; the data are {catalogue.input_dtype.name}: leave it out")
    given, wanted = "float32" if options.input_range else catalogue.input_dtype, trained.inputs[0].dtype
    if not np.can_cast(given, wanted, "same_kind"):
        # Keras would cut off the digits after the point.
        raise UserError(f"{path}: takes samples of {wanted}, not {np.dtype(given)}; give it data of its type")


def _new_head(old, features, classes: int, maps: bool):
    """A head for this many classes, and its logits from the features that the old head got."""
    import keras

    if maps and isinstance(old, keras.layers.Conv2D):
        changed = {"filters": classes, "activation": None, "dtype": "float32", "name": HEAD}
        new = keras.layers.Conv2D.from_config({**old.get_config(), **changed})
    else:
        new = keras.layers.Dense(classes, use_bias=old.use_bias, dtype="float32", name=HEAD)
        # Where the old head was a convolution of one pixel.
        features = features if maps or len(features.shape) == 2 else keras.layers.Flatten()(features)
    return new, new(features)


def freeze(model, patterns: Sequence[str]) -> None:
    """Freeze the layers whose names fit one of the patterns; the head only if a pattern is its name.

    Raises:
        UserError: a pattern fits no layer, or no weight is left to train.
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


def begin_with(model, options: TransferOptions) -> None:
    """Give a network of the user's own the weights of `options.init`, layer by layer, and freeze what is to be frozen.

    Layers whose weights have other shapes in the file stay as they are, and are named.

    Args:
        model: built.
        options: with `init` given.

    Raises:
        UserError: the file is missing, is of another network, or a pattern fits no layer.
    """
    import warnings

    from hpc_train.console import say
    from hpc_train.files.keras_file import checked
    from hpc_train.parallel.replicas import checksums
    from hpc_train.parallel.variables import named

    assert options.init is not None
    path = _file(options.init)
    if not model.built:
        raise UserError(f"--init {path}: the model has no weights yet to replace; call it once in your function")
    before = checksums(model.weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with checked(path, weights_only=True):
                model.load_weights(path, skip_mismatch=True)
        except UserError as error:
            raise UserError(f"--init {error}") from error
        except Exception as error:
            raise UserError(f"--init {path}: Keras cannot load it ({type(error).__name__}: {error})") from error
    kept = [
        key for (key, _), a, b in zip(named(model.weights), before, checksums(model.weights), strict=True) if a == b
    ]
    if len(kept) == len(before):
        raise UserError(f"--init {path}: none of its weights fit this model; give a run of the same network")
    if kept:
        say(f"note: --init {path} leaves these as they are: {', '.join(kept[:6])}{', ...' * (len(kept) > 6)}")
    freeze(model, options.freeze)


def _file(path: Path) -> Path:
    """The file of a run folder's best model, or of its last one; any other path as it is."""
    from hpc_train.parallel.launcher import detect
    from hpc_train.training.ownership import warn_of_others
    from hpc_train.training.run_folder import Run

    given = path
    if path.is_dir():
        run = Run.open(path)
        files = [run.best, run.best.with_suffix(".weights.h5"), run.model, run.model.with_suffix(".weights.h5")]
        path = next((file for file in files if file.exists()), run.model)
    if not path.is_file():
        raise UserError(f"--init {path}: does not exist; give a run folder with a saved model, or a .keras file")
    if detect().rank == 0:
        warn_of_others(given, path)
    return path


def _load(path: Path):
    import keras

    from hpc_train.files.keras_file import checked

    path = _file(path)
    try:
        with checked(path):
            model = keras.models.load_model(path, compile=False)
    except UserError as error:
        raise UserError(f"--init {error}") from error
    # Keras passes all errors on: ValueError, TypeError, KeyError, OSError, those of zipfile and h5py.
    except Exception as error:
        # The first sentence only: the others are about other formats.
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise UserError(f"--init {path}: Keras cannot load it ({type(error).__name__}: {reason})") from error
    if not isinstance(model, keras.Model) or not model.built or not hasattr(model, "inputs"):
        raise UserError(f"--init {path}: has no graph of layers; save a Sequential or functional Keras model")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError(f"--init {path}: has {len(model.inputs)} inputs and {len(model.outputs)} outputs, not one each")
    return model


def _renewed(model):
    """The same weights in new layers, which use Keras's current seed and dtype policy.

    Layers that prepare raw data keep their own policy.
    """
    import keras

    policy = keras.config.dtype_policy()

    def renew(layer):
        if not isinstance(layer, keras.Layer):
            return layer  # an operation of keras.ops: it computes in the type of its inputs
        kept = {} if _takes_raw_data(layer) else {"dtype": policy.name}
        return type(layer).from_config({**layer.get_config(), **kept})

    renewed = keras.models.clone_model(model, clone_function=renew, recursive=True)
    renewed.set_weights(model.get_weights())
    return renewed


def _takes_raw_data(layer) -> bool:
    # Rescaling, Normalization, RandomFlip, ...: half precision is too coarse for pixels.
    return ".layers.preprocessing." in type(layer).__module__


def _takes(shape: tuple, given: tuple) -> bool:
    """Whether a network for samples of `shape`, in which None is any number, takes samples of the `given` shape."""
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
    """The layers of a model and of the models nested in it, without the nested models."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from layers(layer)
        else:
            yield layer
