"""Where names of Keras are: imports that moved, names that tf.keras has and keras has not, names that are gone."""

from __future__ import annotations

import re

import libcst as cst

from hpc_train.port import api
from hpc_train.port.script import Script, canonical, dotted_name

# New names of what moved further than one module up.
_MOVED = {
    "keras.mixed_precision.experimental.set_policy": "keras.mixed_precision.set_global_policy",
    "keras.mixed_precision.set_policy": "keras.mixed_precision.set_global_policy",
    "keras.experimental.CosineDecay": "keras.optimizers.schedules.CosineDecay",
    "keras.experimental.CosineDecayRestarts": "keras.optimizers.schedules.CosineDecayRestarts",
    "keras.experimental.LossScaleOptimizer": "keras.mixed_precision.LossScaleOptimizer",
    "keras.backend.set_image_dim_ordering": "keras.backend.set_image_data_format",
    "keras.backend.image_dim_ordering": "keras.backend.image_data_format",
    "keras.layers.CuDNNLSTM": "keras.layers.LSTM",
    "keras.layers.CuDNNGRU": "keras.layers.GRU",
}
_MODULES = {"keras.objectives": "keras.losses", "keras.layers.merge": "keras.layers"}
# Where classes of Keras's old inner modules are now.
_HOMES = ("keras.layers", "keras.models", "keras.utils", "keras", "keras.saving", "keras.initializers")
_INNER = re.compile(r"keras\.(engine|legacy|models|layers|utils)\b")
_ADVICE = {
    "keras.utils.multi_gpu_model": "one process a GPU with Horovod takes its place: leave it out",
    "keras.backend.learning_phase": "give layers training=True or False",
    "keras.backend.set_learning_phase": "call the model with training=True or False",
    "keras.backend.function": "make a keras.Model of the same inputs and outputs, and call it",
    "keras.backend.get_session": "call functions",
    "keras.backend.set_session": "set the same with tf.config",
    "keras.backend.placeholder": "use keras.Input",
    "keras.layers.experimental.SyncBatchNormalization": "use BatchNormalization(synchronized=True) in tf.distribute, "
    "and hvd.SyncBatchNormalization with Horovod",
    "keras.layers.LocallyConnected1D": "write it as a layer of your own",
    "keras.layers.LocallyConnected2D": "write it as a layer of your own",
    "keras.layers.DenseFeatures": "use keras.utils.FeatureSpace",
    "keras.wrappers.scikit_learn.KerasClassifier": "use keras.wrappers.SKLearnClassifier",
    "keras.wrappers.scikit_learn.KerasRegressor": "use keras.wrappers.SKLearnRegressor",
    "keras.estimator.model_to_estimator": "estimators ended with TensorFlow 2.15: call fit",
    "keras.models.model_from_yaml": "use model_from_json",
}
_OWN_DOORS = {"keras_preprocessing": "tensorflow.keras.preprocessing", "keras_applications": "keras.applications"}


def apply(script: Script) -> None:
    """Bring imports and dotted names to where Keras 3 has them."""
    moved: dict[str, str] = {}
    for node in script.all(cst.ImportFrom):
        if node.relative or node.module is None or script.changes.gone(script.span(node)):
            continue
        if isinstance(node.names, cst.ImportStar):
            _star(script, node)
        else:
            _from(script, node, moved)
    for node in script.all(cst.Import):
        _import(script, node, moved)
    for node, full in script.uses:
        if canonical(full).startswith("keras") and not script.changes.gone(script.span(node)):
            _use(script, node, full, moved)
    _add_wanted(script)


def home(full: str) -> str | None:
    """Where Keras 3 has a name.

    Args:
        full: the name as it was imported, such as `tensorflow.keras.layers.experimental.preprocessing.Resizing`.

    Returns:
        The full name to import now, the same one if it is right; None if Keras 3 has none.
    """
    name, door = canonical(full), "tensorflow." if full.startswith("tensorflow") else ""
    inside = full.startswith("tensorflow.python.keras")
    if api.has(name, bool(door)):
        return f"{door}{name}" if inside else full
    module, _, last = name.rpartition(".")
    candidates = [f"{place}.{last}" for place in _HOMES] if name.startswith("keras.engine.") else []
    candidates += [_MOVED.get(name, ""), *(f"{module.replace(old, new)}.{last}" for old, new in _MODULES.items())]
    above = module.rpartition(".")[0]
    while above:
        candidates.append(f"{above}.{last}")
        above = above.rpartition(".")[0]
    if _INNER.match(name):
        candidates += [f"{place}.{last}" for place in _HOMES]
    if other := api.same(module, last, bool(door)):
        candidates.insert(0, f"{module}.{other}")
    for tensorflow in (bool(door), True):
        for one in [name, *candidates] if tensorflow and not door else candidates:
            if one and api.has(one, tensorflow) and not (api.names(one) is not None and one.count(".") == 0):
                return f"tensorflow.{one}" if tensorflow else one
    return None


def _module_home(full: str) -> str:
    """The nearest module around a missing module that Keras 3 has."""
    name, door = canonical(full), "tensorflow." if full.startswith("tensorflow") else ""
    name = _MODULES.get(name, name)
    while api.names(name, bool(door)) is None and "." in name:
        name = name.rpartition(".")[0]
    return door + name


def _uses(script: Script, name: str) -> list[tuple[cst.CSTNode, str]]:
    """What is left of the uses of an imported name."""
    mine = [(node, full) for node, full in script.uses if dotted_name(node).split(".")[0] == name]
    return [(node, full) for node, full in mine if not script.changes.gone(script.span(node))]


def _was_used(script: Script, name: str) -> bool:
    return any(dotted_name(node).split(".")[0] == name for node, _ in script.uses)


def _from(script: Script, node: cst.ImportFrom, moved: dict[str, str]) -> None:
    """`from MODULE import NAME, ...`."""
    module = dotted_name(node.module)
    module = next((new + module[len(old) :] for old, new in _OWN_DOORS.items() if module.split(".")[0] == old), module)
    is_keras = canonical(f"{module}.x").startswith("keras.") or any(
        canonical(f"{module}.{one.name.value}") == "keras" for one in node.names
    )
    if not is_keras and not module.startswith("tensorflow"):
        return
    groups: dict[str, list[str]] = {}
    reasons: list[str] = []
    for one in node.names:
        name = one.evaluated_alias or one.evaluated_name
        full = f"{module}.{one.evaluated_name}"
        if _was_used(script, name) and not _uses(script, name):
            reasons.append(f"nothing here uses {name} any more")
            continue
        new = _target(script, name, full) if is_keras else full
        if new is None:
            if not _uses(script, name):
                reasons.append(f"Keras 3 has no {canonical(full)}, and nothing here uses it")
                continue
            script.changes.leave(script.line(one), _gone(full), script.span(one))
            new = full
        if new != full or module != dotted_name(node.module):
            moved[name] = new
            reasons.append(_why(full, new))
        parent, _, last = new.rpartition(".")
        groups.setdefault(parent, []).append(last if last == name else f"{last} as {name}")
    _write_from(script, node, groups, reasons)


def _write_from(script: Script, node: cst.ImportFrom, groups: dict[str, list[str]], reasons: list[str]) -> None:
    if not reasons:
        return
    line, reason = script.line(node), "; ".join(dict.fromkeys(reasons))
    if not groups:
        if script.statement(node) is not None:
            script.changes.add(line, reason, script.remove(node))
        return
    same_names = [one.evaluated_alias or one.evaluated_name for one in node.names]
    if len(groups) == 1:
        [(module, names)] = groups.items()
        plain = [name.split(" as ")[0] for name in names] == [one.evaluated_name for one in node.names]
        if plain and len(names) == len(same_names):
            script.changes.add(line, reason, script.replace(node.module, module))
            return
    if "#" in script.code(node):
        script.changes.leave(line, f"{reason}: write these imports anew", script.span(node))
        return
    texts = [f"from {module} import {', '.join(names)}" for module, names in groups.items()]
    text = script.lines(node, texts) if script.statement(node) is not None else "; ".join(texts)
    script.changes.add(line, reason, script.replace(node, text))


def _target(script: Script, name: str, full: str) -> str | None:
    """Where an imported class, function or module is now."""
    uses = [use for _, use in _uses(script, name) if use != full]
    is_module = api.names(canonical(full), full.startswith("tensorflow")) is not None
    if not is_module and not uses:
        return home(full)
    if not is_module and api.has(canonical(full), full.startswith("tensorflow")):
        return home(full)
    new = _module_home(full)
    homes = [found for use in uses if (found := home(use))]
    if any(found.startswith("tensorflow.") for found in homes) and not new.startswith("tensorflow."):
        new = f"tensorflow.{new}"
    if not is_module and not homes and uses:
        return None
    return home(full) or new if is_module and new == full else new


def _import(script: Script, node: cst.Import, moved: dict[str, str]) -> None:
    """`import MODULE` and `import MODULE as NAME`."""
    for one in node.names:
        full = dotted_name(one.name)
        if not canonical(full).startswith("keras") or canonical(full).split(".")[0] != "keras":
            continue
        name = one.evaluated_alias or full.split(".")[0]
        if one.asname:
            if _was_used(script, name) and not _uses(script, name) and len(node.names) == 1:
                if script.statement(node) is not None:
                    script.changes.add(script.line(node), f"nothing here uses {name} any more", script.remove(node))
                continue
            new = _target(script, name, full)
        else:
            new = full if api.names(canonical(full), full.startswith("tensorflow")) is not None else _module_home(full)
        if new is not None and new != full:
            if one.asname:
                moved[name] = new
            script.changes.add(script.line(one), _why(full, new), script.replace(one.name, new))


def _star(script: Script, node: cst.ImportFrom) -> None:
    module = dotted_name(node.module)
    if (
        canonical(module).split(".")[0] == "keras"
        and api.names(canonical(module), module.startswith("tensorf")) is None
    ):
        new = _module_home(module)
        script.changes.add(script.line(node), _why(module, new), script.replace(node.module, new))
    elif module.startswith("tensorflow.python.keras"):
        new = f"tensorflow.{canonical(module)}"
        script.changes.add(script.line(node), _why(module, new), script.replace(node.module, new))


def _use(script: Script, node: cst.CSTNode, full: str, moved: dict[str, str]) -> None:
    """A dotted name of Keras in the script's code."""
    dotted = dotted_name(node)
    first, _, rest = dotted.partition(".")
    if not rest:
        return
    new = home(full)
    if new is None:
        script.changes.leave(script.line(node), _gone(full), script.span(node))
        return
    root = moved.get(first, script.names.get(first, first))
    if canonical(new).startswith(canonical(root) + ".") and (_door(new) == _door(root) or api.has(canonical(new))):
        text = first + canonical(new)[len(canonical(root)) :]
    elif _door(new):
        text = script.tensorflow() + new.removeprefix("tensorflow")
    else:
        text = script.keras(canonical(new).removeprefix("keras."))
    if text != dotted:
        script.changes.add(script.line(node), _why(full, new), script.replace(node, text))


def _door(full: str) -> bool:
    return full.startswith("tensorflow")


def _why(old: str, new: str) -> str:
    if old.startswith("tensorflow.python.keras"):
        return "tensorflow.python.keras is an old copy of Keras 2, which does not mix with Keras 3"
    if canonical(old) == canonical(new):
        return f"tf.keras keeps some names of Keras 2 in {canonical(old)}; keras has not got them"
    (before, _, one), (after, _, other) = canonical(old).rpartition("."), canonical(new).rpartition(".")
    if one == other and api.names(before, old.startswith("tensorflow")) is None:
        return f"Keras 3 has no {before}; {after} has what was in it"
    return f"Keras 3 has {canonical(old)} as {canonical(new)}"


def _gone(full: str) -> str:
    name = canonical(full)
    return f"Keras 3 has no {name}: {_ADVICE.get(name, 'write this part without it')}"


def _add_wanted(script: Script) -> None:
    """Import what new code uses."""
    all_imports = [script.span(node) for node in (*script.all(cst.Import), *script.all(cst.ImportFrom))]
    edits = [edit for finding in script.changes.made for edit in finding.edits]
    code = [edit for edit in edits if not any(place.meets(edit.span) for place in all_imports)]
    pieces = [piece for edit in code for piece in edit.pieces]
    text = "\n".join(piece for piece in pieces if isinstance(piece, str))
    imports = [node for node in (*script.all(cst.Import), *script.all(cst.ImportFrom)) if _is_near(script, node)]
    first = min(imports, key=lambda node: script.span(node).start, default=None)
    for name, statement in script.wanted.items():
        if first is not None and re.search(rf"(?<![\w.]){name}\.", text):
            edit = script.before(first, f"{statement}{script.newline()}{script.indent(first)}")
            script.changes.add(script.line(first), f"the changes below need {name}", edit)


def _is_near(script: Script, node: cst.CSTNode) -> bool:
    """Whether an import is of Keras or TensorFlow, in the open: not in a function or a `try`."""
    line = script.parent(node)
    words = script.code(node)
    return isinstance(script.parent(line), cst.Module) and ("keras" in words or "tensorflow" in words)
