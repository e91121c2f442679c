"""Names of TensorFlow 1: those with one meaning are renamed, switches of eager execution go, the rest is named."""

from __future__ import annotations

import re

import libcst as cst

from hpc_train.port import api
from hpc_train.port.script import Script

# Without `tf.`: the same function under another name.
_RENAMED = {
    "log": "math.log",
    "lgamma": "math.lgamma",
    "log_sigmoid": "math.log_sigmoid",
    "is_nan": "math.is_nan",
    "is_inf": "math.is_inf",
    "ceil": "math.ceil",
    "floordiv": "math.floordiv",
    "rsqrt": "math.rsqrt",
    "erf": "math.erf",
    "set_random_seed": "random.set_seed",
    "random.set_random_seed": "random.set_seed",
    "random_normal": "random.normal",
    "random_uniform": "random.uniform",
    "random_shuffle": "random.shuffle",
    "truncated_normal": "random.truncated_normal",
    "decode_raw": "io.decode_raw",
    "parse_single_example": "io.parse_single_example",
    "parse_example": "io.parse_example",
    "FixedLenFeature": "io.FixedLenFeature",
    "VarLenFeature": "io.VarLenFeature",
    "read_file": "io.read_file",
    "write_file": "io.write_file",
    "python_io.TFRecordWriter": "io.TFRecordWriter",
    "gfile.Exists": "io.gfile.exists",
    "gfile.GFile": "io.gfile.GFile",
    "gfile.Open": "io.gfile.GFile",
    "gfile.Glob": "io.gfile.glob",
    "gfile.ListDirectory": "io.gfile.listdir",
    "gfile.MakeDirs": "io.gfile.makedirs",
    "gfile.IsDirectory": "io.gfile.isdir",
    "gfile.Remove": "io.gfile.remove",
    "gfile.DeleteRecursively": "io.gfile.rmtree",
    "matrix_inverse": "linalg.inv",
    "diag": "linalg.tensor_diag",
    "contrib.data.AUTOTUNE": "data.AUTOTUNE",
}
# The same function is still there under tf.compat.v1, and works eagerly.
_COMPAT = re.compile(r"(logging|app|flags)\b")
_SWITCHES = re.compile(
    r"tensorflow\.(compat\.v1\.)?(enable|disable)_"
    r"(eager_execution|v2_behavior|v2_tensorshape|tensor_equality|resource_variables|control_flow_v2)"
)
# What TensorFlow 1's graphs need; in TensorFlow 2 it is under tf.compat.v1 or gone.
_GRAPH = re.compile(
    r"(placeholder(_with_default)?|Session|InteractiveSession|Graph|reset_default_graph"
    r"|get_variable|variable_scope|global_variables\w*|local_variables\w*|trainable_variables|get_collection"
    r"|layers\.\w+|losses\.\w+|metrics\.\w+|assign|summary\.(scalar|merge_all|FileWriter|histogram)"
    r"|train\.(?!Checkpoint|experimental|Example|Feature|BytesList|Int64List|FloatList|latest_checkpoint)\w+"
    r"|estimator\b.*|wrap_function|gradients|py_func|ConfigProto|GPUOptions)"
)
_ADVICE = (
    (r"estimator\b", "estimators ended with TensorFlow 2.15: build a Keras model and call fit"),
    (r"train\.MonitoredTrainingSession", "write the loop with tf.GradientTape, or call fit of a Keras model"),
    (r"train\.\w*Hook", "hooks belong to sessions: use callbacks of Keras"),
    (r"train\.\w+Optimizer", "use keras.optimizers"),
    (r"train\.(get_or_create_)?global_step", "count steps in a variable; an optimizer of Keras has iterations"),
    (r"train\.Saver", "use tf.train.Checkpoint, or save of a Keras model"),
    (r"placeholder", "pass tensors to a function, or use keras.Input"),
    (r"(Interactive)?Session", "TensorFlow 2 runs eagerly: call functions"),
    (r"layers\.", "use keras.layers"),
    (r"losses\.", "use keras.losses"),
    (r"metrics\.", "use keras.metrics"),
    (r"contrib\b", "tf.contrib ended with TensorFlow 1"),
    (r"examples\b", "use keras.datasets"),
    (r"summary\.", "use the summary writers of TensorFlow 2, or keras.callbacks.TensorBoard"),
    (r"(ConfigProto|GPUOptions)", "set the same with tf.config"),
    (r"train\.experimental\.enable_mixed", 'call keras.mixed_precision.set_global_policy("mixed_float16")'),
)
_HOROVOD = {
    "BroadcastGlobalVariablesHook": "hvd.callbacks.BroadcastGlobalVariablesCallback(0), given to fit",
}
_ENDED = {
    "tensorflow_addons": "tensorflow_addons ended in 2024 and does not work with Keras 3: keras.optimizers has AdamW, "
    "Lamb and Lion, keras.layers has GroupNormalization, keras.metrics has F1Score",
    "keras_contrib": "keras_contrib does not work with Keras 3: copy what you need from it",
    "tensorflow.contrib": "tf.contrib ended with TensorFlow 1",
    "tensorflow.examples": "tensorflow.examples is gone: use keras.datasets.mnist",
    "tensorflow.estimator": "estimators ended with TensorFlow 2.15: build a Keras model and call fit",
    "tensorflow_estimator": "estimators ended with TensorFlow 2.15: build a Keras model and call fit",
}


def apply(script: Script) -> None:
    """Rename what has a new name, and name what has none."""
    _casts(script)
    for node, full in script.uses:
        if full.startswith("tensorflow."):
            _rename(script, node, full)
    for node, full in script.uses:
        path = re.sub(r"^tensorflow\.(compat\.v1\.)?", "", full)
        if full.startswith("tensorflow.") and not script.changes.gone(script.span(node)):
            is_graph = full.startswith("tensorflow.compat.v1.") and _GRAPH.fullmatch(path)
            if is_graph or (not full.startswith("tensorflow.compat.") and _is_gone(full)):
                _name(script, node, path, bool(is_graph))
        hook = script.name(node).removeprefix("hvd.")
        if hook in _HOROVOD:
            reason = f"Keras 3 has no sessions to hook into: use {_HOROVOD[hook]}"
            script.changes.leave(script.line(node), reason, script.span(node))
    _iterators(script)
    _ended(script)
    for call, name in script.calls(_SWITCHES.pattern):
        _switch(script, call, name)


def _is_gone(full: str) -> bool:
    in_keras = re.match(r"tensorflow\.(python\.)?(keras|losses|metrics|optimizers|initializers)\b", full)
    if in_keras:
        return bool(re.match(r"tensorflow\.(losses|metrics)\.[a-z]", full)) and not api.has(
            full.replace("tensorflow", "keras", 1), True
        )
    return not api.tensorflow_has(full)


def _casts(script: Script) -> None:
    """`tf.to_float(x)` and its like."""
    types = {"to_float": "float32", "to_double": "float64", "to_int32": "int32", "to_int64": "int64"}
    for call, name in script.calls(r"tensorflow\.to_\w+"):
        kind = types.get(name.split(".")[-1])
        if kind and len(call.args) == 1:
            tf = script.tensorflow()
            edits = script.replace(call.func, f"{tf}.cast"), script.after(call.args[0].value, f", {tf}.{kind}")
            script.changes.add(script.line(call), f"TensorFlow 2 has no tf.{name.split('.')[-1]}", *edits)


def _rename(script: Script, node: cst.CSTNode, full: str) -> None:
    path = full.removeprefix("tensorflow.")
    if path in _RENAMED and not api.tensorflow_has(full):
        edit = script.replace(node, f"{script.tensorflow()}.{_RENAMED[path]}")
        script.changes.add(script.line(node), f"tf.{path} is tf.{_RENAMED[path]} in TensorFlow 2", edit)
    elif _COMPAT.match(path):
        edit = script.replace(node, f"{script.tensorflow()}.compat.v1.{path}")
        script.changes.add(script.line(node), f"TensorFlow 2 has tf.{path} under compat.v1", edit)


def _name(script: Script, node: cst.CSTNode, path: str, is_graph: bool) -> None:
    way = next((way for pattern, way in _ADVICE if re.match(pattern, path)), "tf_upgrade_v2 may know its new name")
    what = f"tf.compat.v1.{path} is for TensorFlow 1's graphs" if is_graph else f"TensorFlow 2 has no tf.{path}"
    script.changes.leave(script.line(node), f"{what}: {way}", script.span(node))


def _iterators(script: Script) -> None:
    for _, func in script.methods("make_one_shot_iterator", "make_initializable_iterator"):
        reason = f"data sets of TensorFlow 2 have no {func.attr.value}: use iter(dataset), or give the data set to fit"
        script.changes.leave(script.line(func.attr), reason, script.span(func.attr))


def _ended(script: Script) -> None:
    """Imports of packages that are no more."""
    for node in [*script.all(cst.Import), *script.all(cst.ImportFrom)]:
        for package, reason in _ENDED.items():
            if re.search(rf"\b{re.escape(package)}\b", script.code(node).split(" import ")[0]):
                script.changes.leave(script.line(node), reason, script.span(node))
            elif isinstance(node, cst.ImportFrom) and "." in package:
                parent, _, name = package.rpartition(".")
                if re.match(rf"from {re.escape(parent)} import .*\b{name}\b", script.code(node), re.S):
                    script.changes.leave(script.line(node), reason, script.span(node))


def _switch(script: Script, call: cst.Call, name: str) -> None:
    """Eager execution is switched on or off."""
    if script.changes.gone(script.span(call)):
        return
    line, what = script.line(call), name.split(".")[-1]
    graphs = [
        finding for finding in script.changes.left if "TensorFlow" in finding.reason or "sessions" in finding.reason
    ]
    if what.startswith("disable") and graphs:
        reason = f"Keras 3 runs eagerly only; line {graphs[0].line} needs {what}: write that part for eager execution"
        script.changes.leave(line, reason, script.span(call))
    elif script.statement(call) is not None and isinstance(script.parent(call), cst.Expr):
        reason = (
            "Keras 3 and TensorFlow 2 run eagerly from the start"
            if what.startswith("enable")
            else f"Keras 3 runs eagerly only, so {what} must go"
        )
        script.changes.add(line, reason, script.remove(call))
    else:
        script.changes.leave(line, f"Keras 3 runs eagerly only: {what} must go", script.span(call))
