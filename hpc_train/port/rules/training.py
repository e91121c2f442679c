"""Calls of a model: compile, fit with generators, predictions."""

from __future__ import annotations

import libcst as cst

from hpc_train.port.arguments import drop, keyword, literal
from hpc_train.port.kinds import is_metric, is_metric_class, is_model
from hpc_train.port.script import Script

# Methods for generators, and the names of their arguments in order.
_GENERATOR = {
    "fit_generator": (
        "fit",
        ("x", "steps_per_epoch", "epochs", "verbose", "callbacks", "validation_data", "validation_steps"),
    ),
    "evaluate_generator": ("evaluate", ("x", "steps", "callbacks")),
    "predict_generator": ("predict", ("x", "steps", "callbacks")),
}
_LOADING = {"workers", "use_multiprocessing", "max_queue_size", "max_q_size", "nb_worker", "pickle_safe"}
_COMPILE_NAMED = {
    "sample_weight_mode": "weights with the shape of the targets are weights of time steps by themselves",
    "target_tensors": "give targets to fit",
    "distribute": "Horovod distributes",
    "cloning": "nothing is cloned",
}


def apply(script: Script) -> None:
    """Change calls of models."""
    for call, _ in script.methods("compile"):
        _compile(script, call)
    for call, func in script.methods(*_GENERATOR):
        _generator(script, call, func)
    for call, func in script.methods("fit", "evaluate", "predict", *_GENERATOR):
        _fit(script, call, func)
    for call, func in script.methods("predict_classes", "predict_proba"):
        _predict(script, call, func)
    for call, _ in script.calls(r"keras\.(models\.|engine\.\w+\.)?Model"):
        for one in call.args:
            if one.keyword and one.keyword.value in ("input", "output"):
                edit = script.replace(one.keyword, one.keyword.value + "s")
                script.changes.add(script.line(one), f"Model takes {one.keyword.value}s", edit)
    for _, func in script.methods("reset_states"):
        if is_model(script, func.value) and script.code(func.value) != "self":
            reason = "a model of Keras 3 has no reset_states: call reset_state() of each stateful layer"
            script.changes.leave(script.line(func.attr), reason, script.span(func.attr))
        elif is_metric(script, func.value):
            reason = "a metric of Keras 3 calls it reset_state"
            script.changes.add(script.line(func.attr), reason, script.replace(func.attr, "reset_state"))
    for method in script.all(cst.FunctionDef):
        kind = script.around(method, cst.ClassDef)
        if method.name.value == "reset_states" and kind is not None and is_metric_class(script, kind):
            reason = "Keras 3 calls reset_state of a metric, and never reset_states"
            script.changes.add(script.line(method.name), reason, script.replace(method.name, "reset_state"))
    for call, func in script.methods("to_yaml"):
        if is_model(script, func.value):
            script.changes.leave(script.line(call), "Keras 3 has no to_yaml: use to_json", script.span(call))


def _compile(script: Script, call: cst.Call) -> None:
    gone = keyword(call, "experimental_run_tf_function")
    if gone is not None:
        reason = "compile of Keras 3 does not take experimental_run_tf_function; nothing changes without it"
        script.changes.add(script.line(gone), reason, *drop(script, call, gone))
    for name, way in _COMPILE_NAMED.items():
        one = keyword(call, name)
        if one is not None and literal(one.value) is None:
            reason = f"compile of Keras 3 does not take {name}; None changed nothing"
            script.changes.add(script.line(one), reason, *drop(script, call, one))
        elif one is not None:
            script.changes.leave(script.line(one), f"compile of Keras 3 does not take {name}: {way}", script.span(one))


def _generator(script: Script, call: cst.Call, func: cst.Attribute) -> None:
    method, order = _GENERATOR[func.attr.value]
    edits, given = [script.replace(func.attr, method)], [one for one in call.args if not one.keyword and not one.star]
    if len(given) > len(order) or any(one.star for one in call.args):
        reason = f"Keras 3 has no {func.attr.value}: {method} takes generators; give its arguments by name"
        script.changes.leave(script.line(func.attr), reason, script.span(func.attr))
        return
    edits += [script.before(one.value, f"{order[place]}=") for place, one in enumerate(given) if place]
    if first := keyword(call, "generator"):
        edits.append(script.replace(first.keyword, "x"))
    reason = f"Keras 3 has no {func.attr.value}: {method} takes generators"
    script.changes.add(script.line(func.attr), reason, *edits)


def _fit(script: Script, call: cst.Call, func: cst.Attribute) -> None:
    gone = [one for one in call.args if one.keyword and one.keyword.value in _LOADING]
    if gone and (is_model(script, func.value) or func.attr.value in _GENERATOR or len(gone) > 1):
        names = ", ".join(one.keyword.value for one in gone)
        one = "are arguments" if len(gone) > 1 else "is an argument"
        reason = f"{names} {one} of keras.utils.PyDataset in Keras 3, and set{'' if gone[1:] else 's'} only the speed"
        script.changes.add(script.line(gone[0]), reason, *drop(script, call, *gone))
    for one in call.args:
        if one.keyword and one.keyword.value in ("nb_epoch", "samples_per_epoch", "nb_val_samples", "val_samples"):
            if one.keyword.value == "nb_epoch":
                script.changes.add(script.line(one), "fit takes epochs", script.replace(one.keyword, "epochs"))
            else:
                reason = f"{one.keyword.value} counted samples: Keras counts steps (batches)"
                script.changes.leave(script.line(one), reason, script.span(one))


def _predict(script: Script, call: cst.Call, func: cst.Attribute) -> None:
    line, method = script.line(func.attr), func.attr.value
    if method == "predict_proba":
        if is_model(script, func.value):
            reason = "Keras 3 has no predict_proba: predict returns the probabilities"
            script.changes.add(line, reason, script.replace(func.attr, "predict"))
        return
    losses = {one.value.strip("'\"") for one in script.all(cst.SimpleString) if "crossentropy" in one.value}
    names = {node.attr.value for node in script.all(cst.Attribute) if "crossentropy" in node.attr.value.lower()}
    losses |= {name.lower() for name in names}
    binary = {loss for loss in losses if "binary" in loss}
    if not losses or (binary and binary != losses):
        reason = (
            "Keras 3 has no predict_classes: model.predict(x).argmax(axis=-1) for several classes, "
            '(model.predict(x) > 0.5).astype("int32") for two with one output'
        )
        script.changes.leave(line, reason, script.span(func.attr))
        return
    rename = script.replace(func.attr, "predict")
    if binary:
        edits = rename, script.before(call, "("), script.after(call, ' > 0.5).astype("int32")')
    else:
        edits = rename, script.after(call, ".argmax(axis=-1)")
    script.changes.add(line, "Keras 3 has no predict_classes; this is what it did for this loss", *edits)
