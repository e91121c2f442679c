"""Names of files that models and weights are saved to: Keras 3 takes .keras, .h5 and .weights.h5 only."""

from __future__ import annotations

import re

import libcst as cst

from hpc_train.port.arguments import argument, drop, keyword, literal
from hpc_train.port.changes import Edit, Span
from hpc_train.port.kinds import is_model, is_true
from hpc_train.port.script import Script, dotted_name

_WEIGHTS = "Keras 3 saves weights to names that end in .weights.h5 only"
_MODEL = "Keras 3 saves models to names that end in .keras or .h5 only"
_PATHS = ("join", "str", "Path", "abspath", "expanduser")
_OLD = re.compile(r"\.(h5|hdf5|tf|ckpt|weights|keras)$")


def apply(script: Script) -> None:
    """Change names of files, where they are made and where else the same name stands."""
    for call, _ in script.calls(r"keras\.callbacks\.(\w+\.)?ModelCheckpoint"):
        if path := argument(call, "filepath", 0):
            weights = is_true(keyword(call, "save_weights_only"))
            _path(script, path.value, ".weights.h5" if weights else ".keras", checkpoint=True)
        _formats(script, call)
    for call, _ in script.methods("save_weights"):
        if path := argument(call, "filepath", 0):
            _path(script, path.value, ".weights.h5")
        _formats(script, call)
    for call, func in script.methods("save"):
        if is_model(script, func.value) and script.code(func.value) != "self":
            if path := argument(call, "filepath", 0):
                _path(script, path.value, ".keras")
            _formats(script, call)
    for call, _ in script.calls(r"keras\.(models|saving)\.save_model"):
        if path := argument(call, "filepath", 1):
            _path(script, path.value, ".keras")
        _formats(script, call)


def _formats(script: Script, call: cst.Call) -> None:
    """`save_format`, which the name of the file says in Keras 3."""
    if one := keyword(call, "save_format"):
        reason = "the name of the file says the format in Keras 3; it does not take save_format"
        script.changes.add(script.line(one), reason, *drop(script, call, one))


def _path(script: Script, node: cst.BaseExpression, wanted: str, checkpoint: bool = False) -> None:
    """Give a path the ending that Keras 3 wants, if its text is in the script."""
    part, text = _last_text(script, node)
    reason = _WEIGHTS if wanted == ".weights.h5" else _MODEL
    if part is None:
        if wanted == ".weights.h5":
            script.changes.leave(script.line(node), f"{reason}: see that this one does", script.span(node))
        return
    good = (
        (".weights.h5",) if wanted == ".weights.h5" else (".keras", ".h5") if checkpoint else (".keras", ".h5", ".hdf5")
    )
    if text.endswith(good):
        return
    new = _ending(text, wanted)
    if wanted == ".keras" and text.endswith(".hdf5"):
        new = text.removesuffix(".hdf5") + ".h5"
    kept = next((place for place in range(len(text)) if text[place] != new[place : place + 1]), len(text))
    for other in [part, *_same(script, part)]:
        why = reason if other is part else f"the same file as in line {script.line(part)}"
        script.changes.add(script.line(other), why, _new_end(script, other, text[kept:], new[kept:]))


def _ending(text: str, wanted: str) -> str:
    return _OLD.sub("", text.rstrip("/")) + wanted


def _last_text(script: Script, node: cst.CSTNode) -> tuple[cst.CSTNode | None, str]:
    """The text that a path ends with, and the node that holds it; None if it is made when the script runs."""
    if isinstance(node, cst.SimpleString) and isinstance(node.evaluated_value, str):
        return node, node.evaluated_value
    if isinstance(node, cst.FormattedString) and node.parts and isinstance(node.parts[-1], cst.FormattedStringText):
        return node.parts[-1], node.parts[-1].value
    if isinstance(node, cst.ConcatenatedString):
        return _last_text(script, node.right)
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, (cst.Add, cst.Divide)):
        return _last_text(script, node.right)
    if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Modulo):
        return _last_text(script, node.left)
    if isinstance(node, cst.Call) and node.args and (dotted_name(node.func) or "").split(".")[-1] in _PATHS:
        return _last_text(script, node.args[-1].value)
    if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value == "format":
        return _last_text(script, node.func.value)
    if isinstance(node, cst.Name):
        values = _values(script, node)
        if len(values) == 1:
            return _last_text(script, values[0])
    return None, ""


def _values(script: Script, node: cst.Name) -> list[cst.BaseExpression]:
    """What a variable is set to, if it is set by plain assignment only."""
    found = []
    for one in script.scopes[node][node.value]:
        statement = script.around(one.node, cst.Assign) if hasattr(one, "node") else None
        if not isinstance(statement, cst.Assign) or statement.targets[0].target is not one.node:
            return []
        found.append(statement.value)
    return found


def _same(script: Script, part: cst.CSTNode) -> list[cst.CSTNode]:
    """Other places where the same text is the name of a file."""
    if not isinstance(part, cst.SimpleString):
        return []
    form = re.compile(re.sub(r"\\\{.*?\\\}", ".+", re.escape(str(literal(part)))))
    others = [one for one in script.all(cst.SimpleString) if one is not part]
    same = [one for one in others if literal(one) == literal(part) and ("." in part.value or _is_loaded(script, one))]
    made = [one for one in others if _is_loaded(script, one) and form.fullmatch(str(literal(one)))]
    return [*same, *(one for one in made if one not in same)]


def _is_loaded(script: Script, node: cst.CSTNode) -> bool:
    """Whether a text is what a function loads or looks for."""
    call = script.parent(script.parent(node)) if isinstance(script.parent(node), cst.Arg) else None
    name = dotted_name(call.func) if isinstance(call, cst.Call) else None
    return (name or "").split(".")[-1] in ("load_model", "load_weights", "exists", "isfile", "isdir")


def _new_end(script: Script, node: cst.CSTNode, old: str, new: str) -> Edit:
    """An edit of the end of a text, within its quotes."""
    end = script.span(node).end - len(node.quote if isinstance(node, cst.SimpleString) else "")
    return Edit(Span(end - len(old.encode()), end), (new,))
