"""Mixed precision: names that left `experimental`, and a loss scale that the optimizer applies by itself."""

from __future__ import annotations

import libcst as cst

from hpc_train.port.arguments import argument, drop, keyword, literal
from hpc_train.port.script import Script

_HOME = r"keras\.(mixed_precision|optimizers)\.(experimental\.)?"
_REWRITE = r"tensorflow\.(compat\.v1\.)?train\.experimental\.enable_mixed_precision_graph_rewrite"


def apply(script: Script) -> None:
    """Change what scripts call for mixed precision."""
    for _, func in script.methods("get_scaled_loss"):
        edit = script.replace(func.attr, "scale_loss")
        script.changes.add(script.line(func.attr), "LossScaleOptimizer of Keras 3 calls it scale_loss", edit)
    for call, func in script.methods("get_unscaled_gradients"):
        if len(call.args) != 1:
            continue
        used = _used(script, call)
        if used is None:
            reason = "apply_gradients of Keras 3's LossScaleOptimizer unscales gradients itself"
            gradients, above = call.args[0].value, script.parent(call)
            same = isinstance(above, cst.Assign) and script.code(above.targets[0].target) == script.code(gradients)
            goes = same and len(above.targets) == 1 and script.statement(call) is not None
            edit = script.remove(call) if goes else script.replace(call, gradients)
            script.changes.add(script.line(func.attr), reason, edit)
        else:
            reason = (
                "apply_gradients of Keras 3's LossScaleOptimizer unscales gradients itself: here they are scaled, but "
                f"line {used} uses them: to clip them, give the optimizer inside clipnorm, global_clipnorm or clipvalue"
            )
            script.changes.leave(script.line(func.attr), reason, script.span(func.attr))
    for call, _ in script.calls(_HOME + r"(Policy|DTypePolicy)"):
        scale = keyword(call, "loss_scale")
        if scale is not None and literal(scale.value) in ("dynamic", "auto", None):
            reason = "a policy of Keras 3 has no loss scale: compile puts a dynamic one around the optimizer by itself"
            script.changes.add(script.line(scale), reason, *drop(script, call, scale))
        elif scale is not None:
            reason = "a policy of Keras 3 has no loss scale: give the optimizer loss_scale_factor"
            script.changes.leave(script.line(scale), reason, script.span(scale))
    for call, _ in script.calls(_HOME + "LossScaleOptimizer"):
        _loss_scale(script, call)
    for call, _ in script.calls(_REWRITE):
        reason = (
            'Keras 3 has no graph rewrite: call keras.mixed_precision.set_global_policy("mixed_float16") before the '
            "model is made, and give it the optimizer as it is"
        )
        script.changes.leave(script.line(call), reason, script.span(call))
    for node in script.all(cst.Attribute):
        if node.attr.value in ("loss_scale", "loss_scale_manager") and script.code(node.value).endswith("policy"):
            reason = "a policy of Keras 3 has no loss scale: ask the LossScaleOptimizer"
            script.changes.leave(script.line(node.attr), reason, script.span(node))


def _used(script: Script, call: cst.Call) -> int | None:
    """The line where unscaled gradients go anywhere but straight to `apply_gradients`; None if there is none."""
    above = script.parent(call)
    if not isinstance(above, cst.Assign):
        return None if _is_applied(script, call) else script.line(call)
    targets = {script.code(one.target) for one in above.targets}
    inside, after = script.around(call, cst.FunctionDef), script.span(call).end
    for node in (*script.all(cst.Name), *script.all(cst.Attribute)):
        meant = script.code(node) in targets and not isinstance(script.parent(node), cst.AssignTarget)
        here = script.span(node).start > after and script.around(node, cst.FunctionDef) is inside
        if meant and here and not _is_applied(script, node):
            return script.line(node)
    return None


def _is_applied(script: Script, node: cst.CSTNode) -> bool:
    """Whether an expression is an argument of `apply_gradients`, as it is or within a `zip`."""
    call = script.parent(script.parent(node)) if isinstance(script.parent(node), cst.Arg) else None
    if not isinstance(call, cst.Call):
        return False
    if isinstance(call.func, cst.Attribute):
        return call.func.attr.value == "apply_gradients"
    return script.code(call.func) in ("zip", "list") and _is_applied(script, call)


def _loss_scale(script: Script, call: cst.Call) -> None:
    scale = argument(call, "loss_scale", 1)
    if scale is not None and literal(scale.value) == "dynamic":
        reason = "the loss scale of Keras 3 is always dynamic"
        script.changes.add(script.line(scale), reason, *drop(script, call, scale))
    elif scale is not None and scale.keyword is not None:
        reason = "the loss scale of Keras 3 is always dynamic: for a fixed one give the optimizer loss_scale_factor"
        script.changes.leave(script.line(scale), reason, script.span(scale))
    dynamic = keyword(call, "dynamic")
    if dynamic is not None and literal(dynamic.value) is True:
        reason = "the loss scale of Keras 3 is always dynamic"
        script.changes.add(script.line(dynamic), reason, *drop(script, call, dynamic))
    elif dynamic is not None:
        reason = "the loss scale of Keras 3 is always dynamic: for a fixed one give the optimizer loss_scale_factor"
        script.changes.leave(script.line(dynamic), reason, script.span(dynamic))
