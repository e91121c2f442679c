"""Arguments of calls: finding them, reading their values, and leaving them out."""

from __future__ import annotations

import itertools
import re

import libcst as cst

from hpc_train.port.changes import Edit, Span
from hpc_train.port.script import Script


def keyword(call: cst.Call, *names: str) -> cst.Arg | None:
    """The argument of a call that is given by one of these names."""
    return next((one for one in call.args if one.keyword and one.keyword.value in names), None)


def positional(call: cst.Call, place: int) -> cst.Arg | None:
    """The argument at a place, if none before it is given by name or by a star."""
    first = call.args[: place + 1]
    plain = len(first) == place + 1 and not any(one.keyword or one.star for one in first)
    return first[place] if plain else None


def argument(call: cst.Call, name: str, place: int) -> cst.Arg | None:
    """An argument that may be given by name or by place."""
    return keyword(call, name) or positional(call, place)


def literal(node: cst.CSTNode):
    """The value of a number, string, True, False or None; else an object that equals nothing of these."""
    if isinstance(node, (cst.Integer, cst.Float, cst.SimpleString)):
        return node.evaluated_value
    if isinstance(node, cst.Name) and node.value in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[node.value]
    return Ellipsis


def drop(script: Script, call: cst.Call, *arguments: cst.Arg) -> tuple[Edit, ...]:
    """Edits that leave arguments out, with the commas and blanks that go with them; comments stay."""
    runs = itertools.groupby(enumerate(call.args), lambda one: one[1] in arguments)
    places = [[place for place, _ in run] for gone, run in runs if gone]
    return tuple(_without(script, call, run[0], run[-1]) for run in places)


def _without(script: Script, call: cst.Call, first: int, last: int) -> Edit:
    text, start, end = script.changes.text, script.span(call.args[first]).start, script.span(call.args[last]).end
    comma = re.match(rb"\s*,", text[end:]) if isinstance(call.args[last].comma, cst.Comma) else None
    after = end + comma.end() if comma else end
    blanks = re.match(rb"[ \t]*(\r?\n)?", text[after:])
    line_start = text.rfind(b"\n", 0, start) + 1
    if blanks[1] and not text[line_start:start].strip() and comma:
        return Edit(Span(line_start, after + blanks.end()))
    if last + 1 < len(call.args) or first == 0:
        follows = re.match(rb"[ \t]*", text[after:]).end()
        if last + 1 < len(call.args) and not text[after : script.span(call.args[last + 1]).start].strip():
            return Edit(Span(start, script.span(call.args[last + 1]).start))
        return Edit(Span(start, after + (follows if comma else 0)))
    before = script.span(call.args[first - 1]).end
    return Edit(Span(start if b"#" in text[before:start] else before, end))
