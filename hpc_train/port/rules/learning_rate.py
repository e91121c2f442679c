"""The learning rate of an optimizer: `.lr` is `.learning_rate`, and it is read and set without a session."""

from __future__ import annotations

import libcst as cst

from hpc_train.port.arguments import argument, literal
from hpc_train.port.kinds import is_optimizer
from hpc_train.port.script import Script, dotted_name

_RENAMED = "optimizers of Keras 3 call it learning_rate"


def apply(script: Script) -> None:
    """Rename `.lr`, and replace `K.get_value` and `K.set_value`."""
    _get_and_set(script)
    for node in script.all(cst.Attribute):
        if node.attr.value == "lr" and is_optimizer(script, node.value):
            script.changes.add(script.line(node.attr), _RENAMED, script.replace(node.attr, "learning_rate"))
    for call in script.all(cst.Call):
        if dotted_name(call.func) in ("getattr", "hasattr", "setattr") and len(call.args) > 1:
            name = call.args[1].value
            if literal(name) == "lr" and is_optimizer(script, call.args[0].value):
                quote = script.code(name)[0]
                script.changes.add(script.line(name), _RENAMED, script.replace(name, f"{quote}learning_rate{quote}"))
    _state(script)


def _get_and_set(script: Script) -> None:
    for call, name in script.calls(r"keras\.backend\.(tensorflow_backend\.)?(get_value|set_value|eval)"):
        variable = argument(call, "x", 0)
        if variable is None:
            continue
        is_rate = _is_rate(script, variable.value)
        line, function = script.line(call), name.split(".")[-1]
        if function != "set_value":
            if is_rate:
                edit = script.replace(call, "float(", variable.value, ")")
                script.changes.add(line, "a number is read from a variable of Keras 3 with float()", edit)
            continue
        value = argument(call, "value", 1)
        if value is None or not isinstance(variable.value, (cst.Name, cst.Attribute, cst.Subscript)):
            script.changes.leave(line, "Keras 3 has no K.set_value: use variable.assign(value)", script.span(call))
        elif is_rate and isinstance(script.parent(call), cst.Expr) and "\n" not in script.code(value.value):
            edit = script.replace(call, variable.value, " = ", value.value)
            script.changes.add(line, "the rate of a Keras 3 optimizer is set by plain assignment", edit)
        else:
            edit = script.replace(call, variable.value, ".assign(", value.value, ")")
            script.changes.add(line, "a variable of Keras 3 is set with assign; K.set_value is gone", edit)


def _is_rate(script: Script, node: cst.CSTNode) -> bool:
    named = isinstance(node, cst.Attribute) and node.attr.value in ("lr", "learning_rate")
    return named and is_optimizer(script, node.value)


def _state(script: Script) -> None:
    """`opt.variables()`, `opt.weights` and what else an optimizer had."""
    for call, func in script.methods("variables"):
        if not call.args and (is_optimizer(script, func.value) or _is_broadcast(script, call)):
            edit = script.replace(call, func)
            script.changes.add(script.line(func.attr), "variables of a Keras 3 optimizer is a list, no method", edit)
    for call, func in script.methods("get_weights", "set_weights", "minimize", "get_updates", "get_gradients"):
        if not is_optimizer(script, func.value):
            continue
        line, method = script.line(func.attr), func.attr.value
        if method == "get_weights" and not call.args:
            edit = script.replace(call, "[v.numpy() for v in ", func.value, ".variables]")
            script.changes.add(line, "optimizers of Keras 3 have no get_weights", edit)
        else:
            ways = {
                "set_weights": "for variable, value in zip(opt.variables, weights): variable.assign(value)",
                "minimize": "take gradients with tf.GradientTape, then opt.apply_gradients(zip(gradients, variables))",
            }
            way = ways.get(method, "take gradients with tf.GradientTape")
            script.changes.leave(line, f"optimizers of Keras 3 have no {method}: {way}", script.span(func.attr))
    for node in script.all(cst.Attribute):
        if node.attr.value == "weights" and is_optimizer(script, node.value):
            edit = script.replace(node.attr, "variables")
            script.changes.add(script.line(node.attr), "weights of an optimizer is variables in Keras 3", edit)
        if node.attr.value in ("_decayed_lr", "decay", "_hyper", "_get_hyper") and is_optimizer(script, node.value):
            reason = f"optimizers of Keras 3 have no {node.attr.value}: read learning_rate, which follows a schedule"
            script.changes.leave(script.line(node.attr), reason, script.span(node))


def _is_broadcast(script: Script, call: cst.Call) -> bool:
    around = script.parent(script.parent(call)) if isinstance(script.parent(call), cst.Arg) else None
    return isinstance(around, cst.Call) and script.name(around.func) == "hvd.broadcast_variables"
