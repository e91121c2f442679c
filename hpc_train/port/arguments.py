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
    """Edits that leave arguments out; `close_gaps` takes the commas and blanks that go with them."""
    for one in arguments:
        script.dropped.append((call, one))
    return tuple(Edit(script.span(one)) for one in arguments)


def close_gaps(script: Script) -> None:
    """Take commas and blanks around the arguments that all rules together leave out; comments stay."""
    taken = [(call, one) for call, one in script.dropped if script.changes.has(Edit(script.span(one)))]
    for call in dict.fromkeys(call for call, _ in taken):
        gone = [one for other, one in taken if other is call]
        marked = [(place, any(one is other for other in gone)) for place, one in enumerate(call.args)]
        runs = itertools.groupby(marked, lambda one: one[1])
        places = [[place for place, _ in run] for is_gone, run in runs if is_gone]
        wider = [_without(script, call, run[0], run[-1]) for run in places]
        script.changes.swap([Edit(script.span(one)) for one in gone], wider)


def _without(script: Script, call: cst.Call, first: int, last: int) -> Edit:
    text, start, end = script.changes.text, script.span(call.args[first]).start, script.span(call.args[last]).end
    comma = re.compile(rb"\s*,").match(text, end) if isinstance(call.args[last].comma, cst.Comma) else None
    after = comma.end() if comma else end
    blanks = re.compile(rb"[ \t]*(\r?\n)?").match(text, after)
    line_start = text.rfind(b"\n", 0, start) + 1
    comment = text[blanks.end() :].startswith(b"#")
    if comma and not text[line_start:start].strip() and (blanks[1] or comment):
        # Its own line goes; a comment behind it stays on that line.
        return Edit(Span(start if comment and not blanks[1] else line_start, blanks.end()))
    if last + 1 < len(call.args) or first == 0:
        follows = len(re.compile(rb"[ \t]*").match(text, after)[0])
        if last + 1 < len(call.args) and not text[after : script.span(call.args[last + 1]).start].strip():
            return Edit(Span(start, script.span(call.args[last + 1]).start))
        return Edit(Span(start, after + (follows if comma else 0)))
    before = script.span(call.args[first - 1]).end
    return Edit(Span(start if b"#" in text[before:start] else before, end))
