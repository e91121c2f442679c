"""Which expressions of a script are optimizers, and which are models."""

from __future__ import annotations

import re

import libcst as cst

from hpc_train.port.arguments import literal
from hpc_train.port.script import Script, dotted_name

OPTIMIZER = (
    r"keras\.optimizers\.(\w+\.)*(SGD|RMSprop|Adagrad|Adadelta|Adam|AdamW|Adamax|Nadam|Ftrl|Adafactor|Lion|Lamb|get)"
)
_WRAPPER = (
    r"hvd\.DistributedOptimizer",
    r"keras\.(mixed_precision|optimizers)\.(experimental\.)?LossScaleOptimizer",
    r"hpc_train\.parallel\.DistributedOptimizer",
)
_MODEL = (
    r"keras\.(models\.|engine\.\w+\.)?(Sequential|Model|load_model|clone_model|model_from_json)",
    r"keras\.applications\..*",
    r"hvd\.load_model",
)
_METRIC = r"keras\.metrics\.\w+"
_METRIC_NAMES = "metric|loss|acc|mean|auc|precision|recall"
_NAMES = {"optimizer", "opt", "optim", "_optimizer", "optimiser"}


def is_optimizer(script: Script, node: cst.CSTNode) -> bool:
    """Whether an expression is an optimizer of Keras: by what was assigned to it, or by its name."""
    if script.code(node) in script.targets(OPTIMIZER, *_WRAPPER):
        return True
    dotted = dotted_name(node)
    if isinstance(node, cst.Attribute) and node.attr.value == "optimizer":
        dotted = dotted or "x.optimizer"
    others = {full.split(".")[0] for full in script.names.values()}
    return dotted is not None and dotted.split(".")[-1] in _NAMES and "torch" not in others


def is_model(script: Script, node: cst.CSTNode) -> bool:
    """Whether an expression is a model of Keras: by what was assigned to it, or by its name."""
    if script.code(node) in script.targets(*_MODEL):
        return True
    dotted = dotted_name(node)
    if dotted is None or {"torch", "sklearn", "xgboost"} & {full.split(".")[0] for full in script.names.values()}:
        return False
    return "model" in dotted.split(".")[-1].lower() or dotted == "self"


def is_metric(script: Script, node: cst.CSTNode) -> bool:
    """Whether an expression is a metric of Keras: by what was assigned to it, or by its name."""
    if script.code(node) in script.targets(_METRIC):
        return True
    if isinstance(node, cst.Call):
        kind = script.around(node, cst.ClassDef)
        return dotted_name(node.func) == "super" and kind is not None and is_metric_class(script, kind)
    dotted = dotted_name(node)
    return dotted is not None and re.search(_METRIC_NAMES, dotted.split(".")[-1], re.IGNORECASE) is not None


def is_metric_class(script: Script, node: cst.ClassDef) -> bool:
    """Whether a class is made of a metric of Keras."""
    return any(re.fullmatch(_METRIC, script.name(base.value) or "") for base in node.bases)


def optimizer_calls(script: Script) -> list[tuple[cst.Call, str]]:
    """Calls that make an optimizer of Keras, each with its class; empty where it is chosen when the script runs."""
    found = [(call, name.split(".")[-1]) for call, name in script.calls(OPTIMIZER) if not name.endswith(".get")]
    for call in script.all(cst.Call):
        chosen = call.func
        by_name = isinstance(chosen, cst.Call) and dotted_name(chosen.func) == "getattr" and chosen.args
        if by_name and script.name(chosen.args[0].value) in ("keras.optimizers", "keras.optimizers.legacy"):
            found.append((call, ""))
    return found


def strings(script: Script, node: cst.CSTNode) -> list[cst.SimpleString]:
    """The plain strings within an expression."""
    inside = script.span(node)
    return [one for one in script.all(cst.SimpleString) if inside.holds(script.span(one))]


def is_true(arg: cst.Arg | None) -> bool:
    """Whether an argument is given as True."""
    return arg is not None and literal(arg.value) is True
