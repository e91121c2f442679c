"""Arguments of layers, and layers with another name."""

from __future__ import annotations

import libcst as cst

from hpc_train.port.arguments import drop, keyword, literal, positional
from hpc_train.port.changes import Edit
from hpc_train.port.script import Script

_LAYERS = r"keras\.layers\.(\w+\.)*[A-Z]\w*"
_CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}


def apply(script: Script) -> None:
    """Change calls of layers."""
    for call, name in script.calls(_LAYERS):
        kind = name.split(".")[-1]
        _shape(script, call, kind)
        if weights := keyword(call, "weights"):
            _weights(script, call, kind, weights)
        if kind == "LeakyReLU" and (alpha := keyword(call, "alpha")):
            edit = script.replace(alpha.keyword, "negative_slope")
            script.changes.add(script.line(alpha), "LeakyReLU of Keras 3 takes negative_slope", edit)
        if kind == "BatchNormalization" and (fused := keyword(call, "fused")):
            reason = "BatchNormalization of Keras 3 does not take fused"
            script.changes.add(script.line(fused), reason, *drop(script, call, fused))
        for other in ("time_major", "dynamic"):
            if one := keyword(call, other):
                reason = f"layers of Keras 3 do not take {other}"
                if literal(one.value) is False:
                    script.changes.add(script.line(one), reason, *drop(script, call, one))
                else:
                    script.changes.leave(script.line(one), reason, script.span(one))
    for node in [*script.all(cst.Attribute), *script.all(cst.Name)]:
        kind = (script.name(node) or "").removeprefix("keras.layers.")
        if kind in _CUDNN and isinstance(node, cst.Attribute):
            reason = f"{_CUDNN[kind]} of Keras 3 uses cuDNN by itself; there is no {kind}"
            script.changes.add(script.line(node), reason, script.replace(node.attr, _CUDNN[kind]))
    for call, func in script.methods("add_weight", "add_variable"):
        _add_weight(script, call, func)


def _shape(script: Script, call: cst.Call, kind: str) -> None:
    """`batch_input_shape` of any layer and `input_length` of Embedding: the shape of the model's input."""
    batch, length = keyword(call, "batch_input_shape"), keyword(call, "input_length")
    if kind == "InputLayer":
        if batch is not None:
            edit = script.replace(batch.keyword, "batch_shape")
            script.changes.add(script.line(batch), "InputLayer of Keras 3 takes batch_shape", edit)
        return
    given = batch or (length if kind == "Embedding" else None)
    if given is None:
        return
    value = script.code(given.value)
    shape = (
        f"batch_shape={value if not given.value.lpar or value[0] == '(' else f'({value})'}" if batch else f"({value},)"
    )
    reason = f"layers of Keras 3 do not take {given.keyword.value}: "
    gone = [
        one for one in (batch, length, keyword(call, "input_dim") if batch and kind != "Embedding" else None) if one
    ]
    edits = drop(script, call, *gone)
    place = _first_in_model(script, call, shape)
    if place is None and given is length:
        script.changes.add(script.line(given), reason + "Embedding takes any length", *edits)
    elif place is None:
        reason += "put keras.Input(batch_shape=...) before the model's first layer"
        script.changes.leave(script.line(given), reason, script.span(given))
    else:
        script.changes.add(script.line(given), reason + "the model's Input has the shape", place, *edits)


def _first_in_model(script: Script, call: cst.Call, shape: str) -> Edit | None:
    """An Input before the layer, if it is the first of a Sequential model."""
    new = script.keras("Input")
    layer, above = call, script.parent(call)
    while isinstance(above, cst.Arg) and (script.name(script.parent(above).func) or "").startswith("keras.layers."):
        # Bidirectional(LSTM(...)): the layer around it is the one of the model.
        layer, above = script.parent(above), script.parent(script.parent(above))
    if isinstance(above, cst.Element) and isinstance(script.parent(above), cst.List):
        one = script.parent(above)
        around = script.parent(script.parent(one)) if isinstance(script.parent(one), cst.Arg) else None
        is_model = isinstance(around, cst.Call) and (script.name(around.func) or "").endswith(".Sequential")
        if is_model and one.elements[0] is above:
            text, start = script.changes.text, script.whole(layer).start
            line = text.rfind(b"\n", 0, start) + 1
            own_line = not text[line:start].strip()
            gap = "," + (script.newline() + text[line:start].decode() if own_line else " ")
            return script.before(layer, f"{new}({shape}){gap}")
    if isinstance(above, cst.Arg) and isinstance(script.parent(above), cst.Call):
        adds = script.parent(above)
        small = script.statement(adds)
        if isinstance(adds.func, cst.Attribute) and adds.func.attr.value == "add" and small is not None:
            line = f"{script.code(adds.func)}({new}({shape})){script.newline()}{script.indent(small)}"
            return script.before(small, line)
    return None


def _weights(script: Script, call: cst.Call, kind: str, weights: cst.Arg) -> None:
    """`weights=[...]`: what a layer begins with."""
    names = {
        ("Embedding", 1): ["embeddings"],
        ("Dense", 1): ["kernel"],
        ("Dense", 2): ["kernel", "bias"],
        ("Conv1D", 2): ["kernel", "bias"],
        ("Conv2D", 2): ["kernel", "bias"],
    }
    values = weights.value.elements if isinstance(weights.value, cst.List) else ()
    parts = names.get((kind, len(values)), [])
    constant = script.keras("initializers.Constant")
    if not parts or any(keyword(call, f"{part}_initializer") for part in parts):
        reason = "layers of Keras 3 do not take weights: give an initializer, or call set_weights when it is built"
        script.changes.leave(script.line(weights), reason, script.span(weights))
        return
    pieces: list[str | cst.CSTNode] = []
    for part, value in zip(parts, values, strict=True):
        pieces += [", " if pieces else "", f"{part}_initializer={constant}(", value.value, ")"]
    reason = "layers of Keras 3 do not take weights; an initializer gives the same values"
    script.changes.add(script.line(weights), reason, script.replace(weights, *pieces))


def _add_weight(script: Script, call: cst.Call, func: cst.Attribute) -> None:
    edits = []
    first, second = positional(call, 0), positional(call, 1)
    if first is not None and isinstance(literal(first.value), str):
        edits.append(script.before(first.value, "name="))
        if second is not None:
            edits.append(script.before(second.value, "shape="))
    if func.attr.value == "add_variable" and edits:
        edits.append(script.replace(func.attr, "add_weight"))
    if edits and positional(call, 2) is None:
        script.changes.add(script.line(call), "add_weight of Keras 3 takes name by keyword, and shape first", *edits)
