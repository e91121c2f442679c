"""Making optimizers: names of arguments, `decay`, the optimizers of TensorFlow 1."""

from __future__ import annotations

import re

import libcst as cst

from hpc_train.port.arguments import argument, drop, keyword, literal, positional
from hpc_train.port.kinds import is_optimizer, optimizer_calls, strings
from hpc_train.port.script import Script, dotted_name

# What sets the learning rate while training: a schedule in the optimizer would refuse it.
_SETTERS = r"(keras|hvd)\.callbacks\.(LearningRate\w+|ReduceLROnPlateau)"
_TF1 = r"tensorflow\.(compat\.v1\.)?train\.\w+Optimizer"
# Optimizers of TensorFlow 1 with the same formula in Keras: class, arguments in their order, epsilon of TensorFlow 1.
_SAME = {
    "GradientDescentOptimizer": ("SGD", ("learning_rate",), None),
    "MomentumOptimizer": ("SGD", ("learning_rate", "momentum", None, None, "nesterov"), None),
    "AdamOptimizer": ("Adam", ("learning_rate", "beta_1", "beta_2", "epsilon"), "1e-8"),
    "AdadeltaOptimizer": ("Adadelta", ("learning_rate", "rho", "epsilon"), "1e-8"),
}
_NAMES = {"beta1": "beta_1", "beta2": "beta_2", "use_nesterov": "nesterov"}


def apply(script: Script) -> None:
    """Rename `lr`, turn `decay` into a schedule, leave out what is gone, replace optimizers of TensorFlow 1."""
    for call, kind in optimizer_calls(script):
        rate = keyword(call, "lr")
        if rate is not None:
            edit = script.replace(rate.keyword, "learning_rate")
            script.changes.add(script.line(rate), "Keras 3 takes learning_rate; lr is an unknown argument", edit)
        for name in ("epsilon", "schedule_decay"):
            gone = keyword(call, name)
            if gone is not None and (name != "epsilon" or literal(gone.value) is None):
                why = (
                    "epsilon=None is an error in Keras 3; its default, 1e-7, is what None stood for"
                    if name == "epsilon"
                    else "Nadam of Keras 3 has no schedule_decay: its momentum schedule is fixed, at 0.004"
                )
                script.changes.add(script.line(gone), why, *drop(script, call, gone))
        if decay := keyword(call, "decay"):
            _decay(script, call, kind, decay)
    for call, name in script.calls(_TF1):
        _tensorflow1(script, call, name.split(".")[-1])
    for call in script.all(cst.Call):
        if dotted_name(call.func) == "eval" and any(
            re.search(r"\b(lr|decay)\s*=", s.value) for s in strings(script, call)
        ):
            reason = "this text makes an optimizer: Keras 3 takes learning_rate for lr, and has no decay"
            script.changes.leave(script.line(call), reason, script.span(call))


def _decay(script: Script, call: cst.Call, kind: str, decay: cst.Arg) -> None:
    line = script.line(decay)
    if literal(decay.value) in (0, 0.0) and literal(decay.value) is not False:
        reason = "Keras 3 has no decay; 0 changed nothing"
        script.changes.add(line, reason, *drop(script, call, decay))
        return
    fact = "Keras 3 only warns about decay and trains without it"
    rate = keyword(call, "lr", "learning_rate") or positional(call, 0)
    way = "learning_rate=keras.optimizers.schedules.InverseTimeDecay(rate, 1, decay) is what it did"
    if rate is None:
        script.changes.leave(line, f"{fact}; {way}, with the rate that this call leaves out", script.span(decay))
    elif setter := _sets_rate(script):
        reason = f"{fact}; {way}, but line {setter} sets the rate, which a schedule forbids: put it all in one place"
        script.changes.leave(line, reason, script.span(decay))
    else:
        schedule = script.keras("optimizers.schedules.InverseTimeDecay")
        amount = script.code(decay)[script.span(decay.value).start - script.span(decay).start :]
        if decay.value.lpar:
            amount = script.changes.text[script.whole(decay.value).start : script.whole(decay.value).end].decode()
        edits = (
            script.before(rate.value, f"{schedule}("),
            script.after(rate.value, f", 1, {amount})"),
            *drop(script, call, decay),
        )
        reason = f"{fact}; this schedule is what it did: rate / (1 + decay * steps)"
        script.changes.add(line, reason, *edits)


def _sets_rate(script: Script) -> int | None:
    """The line of something in the script that sets the rate of an optimizer."""
    lines = [script.line(call) for call, _ in script.calls(_SETTERS)]
    for call, _ in script.calls(r"keras\.backend\.(tensorflow_backend\.)?set_value"):
        variable = argument(call, "x", 0)
        if (
            variable
            and isinstance(variable.value, cst.Attribute)
            and variable.value.attr.value in ("lr", "learning_rate")
        ):
            lines.append(script.line(call))
    for target in script.all(cst.AssignTarget):
        node = target.target
        is_rate = isinstance(node, cst.Attribute) and node.attr.value in ("lr", "learning_rate")
        if is_rate and is_optimizer(script, node.value):
            lines.append(script.line(node))
    return min(lines, default=None)


def _tensorflow1(script: Script, call: cst.Call, kind: str) -> None:
    line, span = script.line(call), script.span(call)
    if script.methods("minimize", "compute_gradients"):
        reason = "this loop builds a graph: write it with tf.GradientTape and an optimizer of Keras"
        script.changes.leave(line, reason, span)
        return
    if kind not in _SAME:
        reason = f"Keras 3 takes no {kind}, and its own differs in the details: choose one of keras.optimizers"
        script.changes.leave(line, reason, span)
        return
    cls, order, epsilon = _SAME[kind]
    new = script.keras(f"optimizers.{cls}")
    texts, named = [], set()
    for place, one in enumerate(call.args):
        name = _NAMES.get(one.keyword.value, one.keyword.value) if one.keyword else (*order, None, None)[place]
        if name in (None, "use_locking", "name") or one.star:
            if name == "use_locking":
                continue
            if name is None or one.star:
                script.changes.leave(line, f"Keras 3 takes no {kind}: choose one of keras.optimizers", span)
                return
        named.add(name)
        texts.append(f"{name}={script.code(one.value)}")
    if epsilon and "epsilon" not in named:
        texts.append(f"epsilon={epsilon}")
    if "#" in script.code(call):
        script.changes.leave(line, f"Keras 3 takes no {kind}: keras.optimizers.{cls} is the same", span)
        return
    edit = script.replace(call, f"{new}({', '.join(texts)})")
    script.changes.add(line, f"Keras 3 takes no {kind}; this is the same formula", edit)
