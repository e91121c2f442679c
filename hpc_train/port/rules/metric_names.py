"""Names of metrics in logs: `acc` is `accuracy`, if that is what `compile` is given."""

from __future__ import annotations

import re

import libcst as cst

from hpc_train.port.arguments import keyword, literal
from hpc_train.port.changes import Edit, Span
from hpc_train.port.kinds import strings
from hpc_train.port.script import Script

_SHORT = re.compile(r"(val_|train_|test_)?acc")
_IN_FORMAT = re.compile(rb"\{(val_)?acc(?=[:}!])")
_LOGGED = "compile has the metric accuracy, and logs have that name"


def apply(script: Script) -> None:
    """Rename metrics in monitors, logs, histories and names of checkpoints."""
    given = {literal(text) for metrics in _metrics(script) for text in strings(script, metrics)}
    uses = [*_monitors(script), *_keys(script)]
    for node in uses:
        name = literal(node)
        if name == "lr":
            if _is_history(script, node):
                _rename(script, node, name, "learning_rate", "Keras 3 logs the rate as learning_rate")
            continue
        if not isinstance(name, str) or not _SHORT.fullmatch(name) or "acc" in given:
            continue
        if "accuracy" in given:
            _rename(script, node, name, name + "uracy", _LOGGED)
        else:
            reason = f"Keras 3 logs a metric under the name that compile is given: is it {name!r}?"
            script.changes.leave(script.line(node), reason, script.span(node))
    if "accuracy" in given and "acc" not in given:
        for node in script.all(cst.SimpleString):
            if _IN_FORMAT.search(node.value.encode()) and _is_checkpoint(script, node):
                start, code = script.span(node).start, script.code(node).encode()
                ends = [start + match.end() for match in _IN_FORMAT.finditer(code)]
                edits = [Edit(Span(end, end), ("uracy",)) for end in ends]
                script.changes.add(script.line(node), _LOGGED, *edits)


def _rename(script: Script, node: cst.SimpleString, old: str, new: str, reason: str) -> None:
    code = script.code(node)
    script.changes.add(script.line(node), reason, script.replace(node, code.replace(old, new)))


def _metrics(script: Script) -> list[cst.CSTNode]:
    found = [keyword(call, "metrics") for call, _ in script.methods("compile")]
    return [one.value for one in found if one is not None]


def _monitors(script: Script) -> list[cst.CSTNode]:
    """The metric that a callback watches."""
    found = []
    for call, _ in script.calls(r"keras\.callbacks\..*"):
        one = keyword(call, "monitor")
        place = 1 if script.code(call.func).endswith("ModelCheckpoint") else 0
        if one is None and len(call.args) > place and not any(arg.keyword for arg in call.args[: place + 1]):
            one = call.args[place]
        if one is not None and isinstance(one.value, cst.SimpleString):
            found.append(one.value)
    return found


def _keys(script: Script) -> list[cst.CSTNode]:
    """Keys of `logs[...]`, `logs.get(...)` and `history.history[...]`."""
    found = []
    for node in script.all(cst.Subscript):
        if _is_logs(script, node.value) and isinstance(node.slice[0].slice, cst.Index):
            found.append(node.slice[0].slice.value)
    for call, func in script.methods("get"):
        if _is_logs(script, func.value) and call.args:
            found.append(call.args[0].value)
    return [node for node in found if isinstance(node, cst.SimpleString)]


def _is_logs(script: Script, node: cst.CSTNode) -> bool:
    code = script.code(node)
    return code == "logs" or code.endswith(".history")


def _is_history(script: Script, node: cst.CSTNode) -> bool:
    above = script.around(node, cst.Subscript, cst.Call)
    inner = above.value if isinstance(above, cst.Subscript) else above.func.value
    return script.code(inner).endswith(".history")


def _is_checkpoint(script: Script, node: cst.CSTNode) -> bool:
    return "epoch" in node.value or bool(re.search(r"\.(h5|hdf5|keras)", node.value))
