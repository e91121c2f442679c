"""Arguments of callbacks, those of Horovod among them."""

from __future__ import annotations

import libcst as cst

from hpc_train.port.arguments import drop, keyword, literal, positional
from hpc_train.port.kinds import optimizer_calls
from hpc_train.port.script import Script

_DROPPED = {
    "batch_size": "TensorBoard of Keras 3 does not take it, and takes batches as they come",
    "write_grads": "TensorBoard of Keras 3 cannot write gradients",
}
_WARMUP = r"hvd\.callbacks\.LearningRateWarmupCallback"
_SCHEDULE = r"hvd\.callbacks\.LearningRateScheduleCallback"


def apply(script: Script) -> None:
    """Change the arguments of callbacks."""
    for call, _ in script.calls(r"keras\.callbacks\.(\w+\.)?ModelCheckpoint"):
        _period(script, call)
    for call, _ in script.calls(r"keras\.callbacks\.(\w+\.)?TensorBoard"):
        for name, why in _DROPPED.items():
            if one := keyword(call, name):
                script.changes.add(script.line(one), why, *drop(script, call, one))
        for one in call.args:
            if one.keyword and one.keyword.value in ("embeddings_layer_names", "embeddings_data"):
                reason = f"TensorBoard of Keras 3 has no {one.keyword.value}: it writes all embeddings"
                script.changes.add(script.line(one), reason, *drop(script, call, one))
    for call, _ in script.calls(r"keras\.callbacks\.(\w+\.)?ReduceLROnPlateau"):
        if one := keyword(call, "epsilon"):
            edit = script.replace(one.keyword, "min_delta")
            script.changes.add(script.line(one), "ReduceLROnPlateau takes min_delta", edit)
    for call, _ in script.calls(_WARMUP, _SCHEDULE):
        _initial(script, call)
    for node in script.all(cst.ClassDef):
        if any((script.name(base.value) or "").startswith("keras.callbacks.") for base in node.bases):
            _own(script, node)


def _period(script: Script, call: cst.Call) -> None:
    period = keyword(call, "period")
    if period is None:
        return
    if literal(period.value) == 1:
        reason = "ModelCheckpoint of Keras 3 has no period; once an epoch is its default"
        script.changes.add(script.line(period), reason, *drop(script, call, period))
    else:
        reason = (
            "ModelCheckpoint of Keras 3 has no period: save_freq counts batches, so give "
            f"save_freq={script.code(period.value)} * steps of an epoch"
        )
        script.changes.leave(script.line(period), reason, script.span(period))


def _initial(script: Script, call: cst.Call) -> None:
    """`initial_lr` of Horovod's callbacks, which must be given since Horovod 0.21."""
    if old := keyword(call, "lr"):
        edit = script.replace(old.keyword, "initial_lr")
        script.changes.add(script.line(old), "Horovod's callbacks take initial_lr", edit)
    first = positional(call, 0)
    if first is not None and positional(call, 1) is None and not keyword(call, "initial_lr", "lr"):
        _old_order(script, call, first)
        return
    if keyword(call, "lr", "initial_lr") or any(not one.keyword or one.star for one in call.args):
        return
    line = script.line(call)
    rate = _rate(script, call)
    if rate is None:
        reason = "Horovod's callback needs initial_lr: the rate that the optimizer has after the warm-up"
        script.changes.leave(line, reason, script.span(call.func))
        return
    text = f"initial_lr={rate}" + (", " if call.args else "")
    edit = script.before(call.args[0].keyword, text) if call.args else _inside(script, call, text)
    script.changes.add(line, "Horovod's callback needs initial_lr; this is the optimizer's rate", edit)


def _old_order(script: Script, call: cst.Call, first: cst.Arg) -> None:
    """The only argument without a name, which came first before `initial_lr` did."""
    name = "warmup_epochs" if script.code(call.func).endswith("WarmupCallback") else "multiplier"
    if keyword(call, name) or (name == "warmup_epochs" and not isinstance(first.value, cst.Integer)):
        return
    rate = _rate(script, call)
    reason = f"the first argument of Horovod's callback is initial_lr now, and was {name}"
    if rate is None:
        script.changes.leave(script.line(first), f"{reason}: name both", script.span(first))
    else:
        edit = script.before(first.value, f"initial_lr={rate}, {name}=")
        script.changes.add(script.line(first), reason, edit)


def _inside(script: Script, call: cst.Call, text: str):
    return script.replace(call, call.func, f"({text})")


def _rate(script: Script, call: cst.Call) -> str | None:
    """The text of the rate that the only optimizer of the script is made with, if it means the same here."""
    made = optimizer_calls(script)
    if len(made) != 1:
        return None
    maker = made[0][0]
    given = keyword(maker, "lr", "learning_rate") or (
        maker.args[0] if maker.args and not maker.args[0].keyword else None
    )
    if given is None or script.around(maker, cst.FunctionDef) is not script.around(call, cst.FunctionDef):
        return None
    if script.span(call).start < script.span(maker).start:
        return None
    return script.code(given.value) if _is_stable(script, given.value) else None


def _is_stable(script: Script, node: cst.CSTNode) -> bool:
    """Whether an expression has the same value a few lines later: numbers, names set once, and the world's size."""
    if isinstance(node, (cst.Integer, cst.Float)):
        return True
    if isinstance(node, cst.BinaryOperation):
        return _is_stable(script, node.left) and _is_stable(script, node.right)
    if isinstance(node, cst.Call):
        return not node.args and script.name(node.func) in ("hvd.size", "hvd.local_size")
    if isinstance(node, cst.Name):
        return len(list(script.scopes[node][node.value])) <= 1
    return isinstance(node, cst.Attribute) and isinstance(node.value, cst.Name) and node.attr.value != "lr"


def _own(script: Script, node: cst.ClassDef) -> None:
    """A callback of the script's own."""
    inside = script.span(node)
    for one in script.all(cst.Attribute):
        if inside.holds(script.span(one)) and script.code(one) == "self.validation_data":
            reason = "callbacks of Keras 3 are given no validation_data: hand it to the callback yourself"
            script.changes.leave(script.line(one), reason, script.span(one))
