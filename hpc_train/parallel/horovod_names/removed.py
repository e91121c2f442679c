"""What Keras 3 and TensorFlow 2.16 no longer have: one line for the error of a script that asks for it."""

import os
import re
import sys
from types import ModuleType

from hpc_train.parallel import failure

_SESSIONS = (
    "TensorFlow 2 has no sessions: leave these lines out, and choose the GPU by "
    "tf.config.set_visible_devices(tf.config.list_physical_devices('GPU')[hvd.local_rank()], 'GPU')"
)
_TF1 = "it is of TensorFlow 1: with Keras's fit or a tf.GradientTape nothing takes its place"
_LEGACY = "use the class of the same name in keras.optimizers"
_SCALED = "use loss = optimizer.scale_loss(loss); apply_gradients divides by the scale"
_STATE = "use optimizer.variables; model.save(FILE.keras) and load_model keep the optimizer's state"
_PHASE = "call the model with training=True or training=False"
_LOADING = "Keras 3's fit takes workers=, use_multiprocessing= and max_queue_size= in keras.utils.PyDataset(...)"
_LAYERS = "all layers are in keras.layers"
_UTILS = "its functions, such as to_categorical, are in keras.utils"

# By name: what to write instead.
INSTEAD = {
    **dict.fromkeys(
        (
            *("Session", "InteractiveSession", "ConfigProto", "GPUOptions", "set_session", "get_session"),
            *("tensorflow_backend", "manual_variable_initialization"),
        ),
        _SESSIONS,
    ),
    **dict.fromkeys(
        (
            *("placeholder", "global_variables_initializer", "get_default_graph", "reset_default_graph"),
            *("get_global_step", "MonitoredTrainingSession", "enable_eager_execution", "contrib", "estimator"),
            *("AdamOptimizer", "GradientDescentOptimizer", "MomentumOptimizer", "layers", "get_updates", "function"),
        ),
        _TF1,
    ),
    **dict.fromkeys(("legacy", "keras.optimizers.legacy"), _LEGACY),
    **dict.fromkeys(("get_scaled_loss", "get_unscaled_gradients"), _SCALED),
    **dict.fromkeys(("get_weights", "weights"), _STATE),
    **dict.fromkeys(("learning_phase", "set_learning_phase"), _PHASE),
    **dict.fromkeys(("workers", "use_multiprocessing", "max_queue_size"), _LOADING),
    **dict.fromkeys(("normalization", "core", "convolutional", "pooling", "embeddings", "recurrent"), _LAYERS),
    **dict.fromkeys(("np_utils", "generic_utils"), _UTILS),
    "reset_states": "use reset_state, of a metric or of each stateful layer",
    "fit_generator": "use fit, which takes generators",
    "evaluate_generator": "use evaluate, which takes generators",
    "predict_generator": "use predict, which takes generators",
    "predict_classes": "use model.predict(x).argmax(-1), or (model.predict(x) > 0.5) for one output",
    "predict_proba": "use predict",
    "set_random_seed": "use keras.utils.set_random_seed",
    "multi_gpu_model": "Horovod runs one process a GPU: leave it out",
    "experimental": "what was under experimental is in the module above it, or gone",
    "ImageDataGenerator": "import it from tensorflow.keras.preprocessing.image",
    "CuDNNLSTM": "use LSTM, which takes cuDNN by itself",
    "CuDNNGRU": "use GRU, which takes cuDNN by itself",
    "wrappers": "use the scikeras package",
    "tensorflow_addons": "the package ended in 2024, and does not work with Keras 3: take its parts from Keras",
    "minimize": "compute gradients under a tf.GradientTape, and call apply_gradients",
    "to_yaml": "use to_json",
    "model_from_yaml": "use model_from_json",
    "output_shape": "use layer.output.shape",
    "input_shape": "use layer.input.shape",
    "period": "use save_freq='epoch', or a number of batches",
    "nb_epoch": "use epochs",
    "sample_weight_mode": "leave it out: sample weights may have a time axis",
    "target_tensors": "leave it out",
    "reset_metrics": "call model.reset_metrics()",
    "write_grads": "leave it out",
    "batch_size": "leave it out",
    "objectives": "use keras.losses",
    "engine": "import from keras, keras.layers or keras.models",
    "log": "use tf.math.log",
    "to_float": "use tf.cast(x, 'float32')",
    "renorm": "leave it out",
}

# Texts of Keras's own, and what to write instead.
_TEXTS = (
    (r"must end in `\.weights\.h5`", "Keras 3 writes weights to files that end in .weights.h5: name the file so"),
    (r"must end in `\.keras`", "Keras 3 writes models to files that end in .keras or .h5: name the file so"),
    (r"Invalid filepath extension", "Keras 3 writes models to files that end in .keras or .h5, not to folders"),
    (r"`save_format` argument is deprecated", "Keras 3 has no save_format=: the file's ending, .keras or .h5, says it"),
    (
        r"File format not supported",
        "Keras 3 reads no TensorFlow checkpoints and SavedModels: write it again as .h5 with Keras 2",
    ),
    (
        r"only be called for the variables it was originally built with",
        "an optimizer of Keras 3 belongs to the model that it has trained: make, and wrap, a new one for this model",
    ),
    (
        r"A KerasTensor cannot be used as input to a TensorFlow function",
        "Keras 3's models take functions of keras.ops, not of tf, between their layers: use keras.ops, or call the "
        "function in a layer of your own",
    ),
    (r"keras\.optimizers\.legacy", f"Keras 3 has no keras.optimizers.legacy: {_LEGACY}"),
)
_ATTRIBUTE = re.compile(r"no attribute '(\w+)'")
_IMPORT = re.compile(r"cannot import name '(\w+)' from '((?:keras|tensorflow)[\w.]*)'")
_MODULE = re.compile(r"No module named '((?:keras|tensorflow)(?:\.[\w.]*)?|tensorflow_addons)'")
_KEYWORD = re.compile(
    r"^(\w[\w.]*)\(\) got an unexpected keyword argument '(\w+)'|"
    r"(?:Arguments?\S* not recognized|Unrecognized keyword arguments passed to \w+): \{'(\w+)'"
)


def explain_errors() -> None:
    """Have the errors that end this process explained, if they are about what is no more."""
    if explain not in failure.explainers:
        failure.explainers.append(explain)


def explain(kind: type[BaseException], error, trace) -> str | None:
    """A line for an error of Keras or TensorFlow about something that they no longer have; None for any other error.

    Args:
        kind: class of the error.
        error: the error.
        trace: its traceback.
    """
    said = _said(kind, error)
    if not said:
        return None
    file, line = _place(trace)
    name = os.path.basename(file)
    return f"{name}:{line}: {said}; try `hpc-train port {name}`" if name else said


def _said(kind, error) -> str | None:
    text = str(error)
    if issubclass(kind, (AttributeError, TypeError, ValueError, ImportError)):
        for pattern, instead in _TEXTS:
            if re.search(pattern, text):
                return instead
    if issubclass(kind, AttributeError) and (found := _ATTRIBUTE.search(text)):
        owner = _owner(error.obj, text)
        return owner and _gone(owner, found[1])
    if issubclass(kind, ModuleNotFoundError) and (found := _MODULE.search(text)):
        # Not where TensorFlow or Keras itself is missing.
        return None if found[1] in ("keras", "tensorflow") else _gone(_library(found[1]), found[1])
    if issubclass(kind, ImportError) and (found := _IMPORT.search(text)):
        return _gone(_library(found[2]), found[1])
    if issubclass(kind, (TypeError, ValueError)) and (found := _KEYWORD.search(text)):
        word = found[2] or found[3]
        return _gone("Keras 3", word, f"{word}=") if word in INSTEAD else None
    return None


def _gone(library: str, name: str, shown: str = "") -> str:
    parts = [name, *reversed(name.split("."))]
    instead = next((INSTEAD[part] for part in parts if part in INSTEAD), "")
    return f"{library} has no {shown or name}" + (f": {instead}" if instead else "")


def _library(module: str) -> str:
    return "TensorFlow" if module.startswith("tensorflow") and "keras" not in module else "Keras 3"


def _owner(holder, text: str) -> str | None:
    """The library whose module or object `holder` is; None for anything else."""
    if isinstance(holder, ModuleType):
        module = holder.__name__
    elif holder is None:
        # Modules that load late raise the error themselves.
        module = next(iter(re.findall(r"module '((?:keras|tensorflow)[\w.]*)'", text)), "")
    else:
        kind = holder if isinstance(holder, type) else type(holder)
        module = next((k.__module__ for k in kind.__mro__ if k.__module__.split(".")[0] == "keras"), "")
    return _library(module) if module.split(".")[0] in ("keras", "tensorflow") else None


def _place(trace) -> tuple[str, int]:
    """File and line of the innermost frame that is no library's: the script's, or that of a module beside it."""
    place = ("", 0)
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    libraries = (sys.prefix, sys.base_prefix, here)
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        inside = "site-packages" in file or os.path.abspath(file).startswith(tuple(f"{p}/lib" for p in libraries))
        if not inside and not os.path.abspath(file).startswith(os.path.join(here, "hpc_train")) and file[:1] != "<":
            place = (file, trace.tb_lineno)
        trace = trace.tb_next
    return place
