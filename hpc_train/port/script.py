"""A Python script as its rules see it: names through imports and aliases, calls, and edits of arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeVar

import libcst as cst
from libcst import metadata

from hpc_train.port import api
from hpc_train.port.changes import Changes, Edit, Span

_Node = TypeVar("_Node", bound=cst.CSTNode)
_KERAS = ("tensorflow.python.keras", "tensorflow.compat.v1.keras", "tensorflow.compat.v2.keras", "tensorflow.keras")
# `tf.optimizers` and the like are modules of Keras.
_OF_KERAS = re.compile(r"tensorflow\.(optimizers|losses|metrics|initializers)\b")
_HOROVOD = ("horovod.tensorflow.keras", "horovod.keras", "horovod.tensorflow")


class Script:
    """A parsed script.

    Args:
        text: its text, with its own line ends.

    Raises:
        libcst.ParserSyntaxError: it is not Python 3.
    """

    def __init__(self, text: str):
        self.changes = Changes(text.encode())
        wrapper = metadata.MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
        self.module = wrapper.module
        self._places = wrapper.resolve(metadata.PositionProvider)
        self._bytes = wrapper.resolve(metadata.ByteSpanPositionProvider)
        self._parents = wrapper.resolve(metadata.ParentNodeProvider)
        self.scopes = wrapper.resolve(metadata.ScopeProvider)
        self._nodes = list(_walk(self.module))
        self.names: dict[str, str] = {}
        self.stars: list[str] = []
        self.wanted: dict[str, str] = {}
        self.dropped: list[tuple[cst.Call, cst.Arg]] = []
        self.removed: list[tuple[cst.BaseSmallStatement, Edit]] = []
        self._targets: dict[tuple[str, ...], dict[str, list[cst.Call]]] = {}
        self._read_imports()
        self._read_aliases()
        self.uses = [(node, full) for node in self._nodes if self._is_use(node) and (full := self.full_name(node))]

    # Where things are

    def all(self, kind: type[_Node]) -> list[_Node]:
        """All nodes of a kind, in the order of the text."""
        return [node for node in self._nodes if isinstance(node, kind)]

    def span(self, node: cst.CSTNode) -> Span:
        """Where a node stands, without the blanks around it."""
        place = self._bytes[node]
        return Span(place.start, place.start + place.length)

    def whole(self, node: cst.CSTNode) -> Span:
        """Where a node stands, with the brackets around it."""
        span = self.span(node)
        if getattr(node, "lpar", ()):
            return Span(self.span(node.lpar[0]).start, self.span(node.rpar[-1]).end)
        return span

    def line(self, node: cst.CSTNode) -> int:
        """The line of a node, from 1."""
        return self._places[node].start.line

    def code(self, node: cst.CSTNode) -> str:
        """The text of a node."""
        span = self.span(node)
        return self.changes.text[span.start : span.end].decode()

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """The node around a node."""
        return self._parents.get(node)

    def around(self, node: cst.CSTNode, *kinds: type[cst.CSTNode]) -> cst.CSTNode | None:
        """The nearest node around it that is of one of these kinds."""
        above = self.parent(node)
        while above is not None and not isinstance(above, kinds):
            above = self.parent(above)
        return above

    # What names stand for

    def name(self, node: cst.CSTNode) -> str | None:
        """What a name or a dotted name stands for, with Keras's and Horovod's doors as one: `keras.layers.Dense`."""
        full = self.full_name(node)
        return None if full is None else canonical(full)

    def full_name(self, node: cst.CSTNode) -> str | None:
        """What a name or a dotted name stands for, as it was imported: `tensorflow.keras.layers.Dense`."""
        dotted = dotted_name(node)
        if dotted is None:
            return None
        first, _, rest = dotted.partition(".")
        if first in self.names:
            return f"{self.names[first]}.{rest}" if rest else self.names[first]
        for module in self.stars:
            known = api.names(canonical(module), module.startswith("tensorflow")) if "keras" in module else None
            if known and first in known:
                return f"{module}.{dotted}"
        return None

    def calls(self, *names: str) -> list[tuple[cst.Call, str]]:
        """Calls of functions or classes whose names match one of these patterns, with what is called."""
        pattern = re.compile("|".join(f"(?:{name})" for name in names))
        found = [(call, self.name(call.func)) for call in self.all(cst.Call)]
        return [(call, name) for call, name in found if name and pattern.fullmatch(name)]

    def methods(self, *names: str) -> list[tuple[cst.Call, cst.Attribute]]:
        """Calls of methods of these names, on anything that is no module."""
        found = [(call, call.func) for call in self.all(cst.Call) if isinstance(call.func, cst.Attribute)]
        return [(call, func) for call, func in found if func.attr.value in names and not self.name(func)]

    def targets(self, *names: str) -> dict[str, list[cst.Call]]:
        """Calls whose results are assigned, by what they are assigned to."""
        if names not in self._targets:
            self._targets[names] = self._find_targets(*names)
        return self._targets[names]

    def _find_targets(self, *names: str) -> dict[str, list[cst.Call]]:
        found: dict[str, list[cst.Call]] = {}
        for call, _ in self.calls(*names):
            above = self.parent(call)
            if isinstance(above, cst.Assign):
                for target in above.targets:
                    found.setdefault(self.code(target.target), []).append(call)
            elif isinstance(above, cst.AnnAssign):
                found.setdefault(self.code(above.target), []).append(call)
        return found

    def keras(self, path: str) -> str:
        """How this script can write a name of Keras, such as `layers.Dense`; an import is added if it has none."""
        modules = path.split(".")
        for name, full in self.names.items():
            here = canonical(full).split(".")
            if here[0] != "keras" or full.startswith("tensorflow.python") or not api.has(".".join(here)):
                continue
            rest = ["keras", *modules][len(here) :]
            if ["keras", *modules][: len(here)] == here and (rest or here[-1] == modules[-1]):
                return ".".join([name, *rest])
        tensorflow = next((name for name, full in self.names.items() if _plain_tensorflow(full)), None)
        if tensorflow:
            return f"{tensorflow}.keras.{path}"
        doors = {full.split(".")[0] for full in [*self.names.values(), *self.stars] if "keras" in full}
        self.wanted["keras"] = "from tensorflow import keras" if doors == {"tensorflow"} else "import keras"
        return f"keras.{path}"

    def tensorflow(self) -> str:
        """How this script names TensorFlow; an import is added if it does not."""
        named = next((name for name, full in self.names.items() if _plain_tensorflow(full)), None)
        if named is None:
            self.wanted["tf"] = "import tensorflow as tf"
        return named or "tf"

    def _is_use(self, node: cst.CSTNode) -> bool:
        """Whether a node is a whole name or dotted name that is read, and no part of an import."""
        if not isinstance(node, (cst.Name, cst.Attribute)):
            return False
        above = self.parent(node)
        if isinstance(above, cst.Attribute) or (isinstance(above, cst.Arg) and above.keyword is node):
            return False
        if isinstance(above, (cst.Param, cst.FunctionDef, cst.ClassDef, cst.AssignTarget, cst.ImportAlias, cst.AsName)):
            return False
        return not isinstance(above, (cst.Import, cst.ImportFrom))

    def _read_imports(self) -> None:
        for node in self.all(cst.Import):
            for one in node.names:
                full = dotted_name(one.name)
                if one.asname:
                    self.names.setdefault(self.code(one.asname.name), full)
                else:
                    first = full.split(".")[0]
                    self.names.setdefault(first, first)
        for node in self.all(cst.ImportFrom):
            if node.relative or node.module is None:
                continue
            module = dotted_name(node.module)
            if isinstance(node.names, cst.ImportStar):
                self.stars.append(module)
                continue
            for one in node.names:
                name = self.code(one.asname.name if one.asname else one.name)
                self.names.setdefault(name, f"{module}.{dotted_name(one.name)}")

    def _read_aliases(self) -> None:
        """`layers = tf.keras.layers` is as good as an import."""
        for node in self.all(cst.Assign):
            target = node.targets[0].target
            if len(node.targets) == 1 and isinstance(target, cst.Name) and isinstance(node.value, cst.Attribute):
                full = self.full_name(node.value)
                if full and target.value not in self.names:
                    self.names[target.value] = full

    # Edits

    def replace(self, node: cst.CSTNode, *pieces: str | cst.CSTNode) -> Edit:
        """Other text for a node and the brackets around it; nodes among the pieces are kept."""
        return Edit(self.whole(node), tuple(self._piece(piece) for piece in pieces))

    def before(self, node: cst.CSTNode, text: str) -> Edit:
        """Text before a node."""
        start = self.whole(node).start
        return Edit(Span(start, start), (text,))

    def after(self, node: cst.CSTNode, text: str) -> Edit:
        """Text behind a node."""
        end = self.whole(node).end
        return Edit(Span(end, end), (text,))

    def _piece(self, piece: str | cst.CSTNode) -> str | Span:
        return piece if isinstance(piece, str) else self.whole(piece)

    # Statements

    def statement(self, node: cst.CSTNode) -> cst.BaseSmallStatement | None:
        """The small statement that a node is a part of, if it is the only one on its line."""
        small = node if isinstance(node, cst.BaseSmallStatement) else self.around(node, cst.BaseSmallStatement)
        line = self.parent(small) if small is not None else None
        return small if isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1 else None

    def indent(self, node: cst.CSTNode) -> str:
        """The blanks before the statement that a node is a part of."""
        start = self.changes.text.rfind(b"\n", 0, self.span(self.statement(node) or node).start) + 1
        return re.match(rb"[ \t]*", self.changes.text[start:])[0].decode()

    def step(self) -> str:
        """The blanks by which blocks are indented."""
        return self.module.default_indent

    def newline(self) -> str:
        """What ends a line."""
        return self.module.default_newline

    def lines(self, node: cst.CSTNode, texts: list[str]) -> str:
        """Several statements in place of one, at its indentation."""
        return (self.newline() + self.indent(node)).join(texts)

    def remove(self, node: cst.CSTNode) -> Edit:
        """The script without a statement; `fill_blocks` sees to blocks that have no other."""
        small = self.statement(node)
        edit = self._without(small)
        self.removed.append((small, edit))
        return edit

    def fill_blocks(self) -> None:
        """Put `pass` in place of the last statement of each block that all rules together leave empty."""
        gone = {self.parent(small): (small, edit) for small, edit in self.removed if self.changes.has(edit)}
        for block in self.all(cst.IndentedBlock):
            if all(line in gone for line in block.body):
                small, edit = gone[block.body[-1]]
                span, kept = self.span(small), self.changes.text
                texts = kept[edit.span.start : span.start].decode(), kept[span.end : edit.span.end].decode()
                self.changes.swap([edit], [Edit(edit.span, (texts[0], "pass", texts[1]))])

    def _without(self, small: cst.BaseSmallStatement) -> Edit:
        span = self.span(small)
        text = self.changes.text
        start = text.rfind(b"\n", 0, span.start) + 1
        rest = re.match(rb"[ \t]*\r?\n?", text[span.end :])
        if rest[0].endswith(b"\n"):
            return Edit(Span(start, span.end + rest.end()))
        # A comment behind the statement stays.
        return Edit(Span(span.start, span.end + len(re.match(rb"[ \t]*", text[span.end :])[0])))


def canonical(full: str) -> str:
    """One name for what several doors lead to: `keras....` for all of Keras, `hvd....` for Horovod on Keras."""
    for door in _KERAS:
        if full == door or full.startswith(door + "."):
            return "keras" + full[len(door) :]
    for door in _HOROVOD:
        if full == door or full.startswith(door + "."):
            return "hvd" + full[len(door) :]
    if _OF_KERAS.match(full):
        return "keras" + full[len("tensorflow") :]
    return full


def dotted_name(node: cst.CSTNode) -> str | None:
    """The text of a name or a dotted name; None for any other expression."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        before = dotted_name(node.value)
        return None if before is None else f"{before}.{node.attr.value}"
    return None


def _plain_tensorflow(full: str) -> bool:
    return full in ("tensorflow", "tensorflow.compat.v1", "tensorflow.compat.v2")


def _walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _walk(child)
