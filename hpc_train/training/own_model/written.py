"""The signature of a function by the text of its file alone: nothing of the user's is imported or run."""

import ast
import inspect
import sys
import warnings
from collections.abc import Iterator
from importlib.machinery import PathFinder
from inspect import Parameter
from pathlib import Path

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def signature(reference: str) -> inspect.Signature | None:
    """The signature of the function that `FILE.py:NAME` or `package.module:NAME` names, with None for each default.

    Returns:
        None where the file does not tell: it is not there or not Python, or the name is no function that the file
        defines for sure and without a decorator.
    """
    place, _, name = reference.rpartition(":")
    path = _file(place)
    try:
        tree = parsed(path.read_bytes()) if path else None
    except OSError:
        return None
    if not isinstance(tree, ast.Module):
        return None
    # The last one counts; one in an `if` or `try` is not among the file's own statements.
    last = ([None] + [node for bound, node in _bindings(tree) if bound in (name, "*")])[-1]
    if last not in tree.body or not isinstance(last, ast.FunctionDef) or last.decorator_list:
        return None
    return _of_arguments(last.args)


def parsed(source: str | bytes, mode: str = "exec") -> ast.AST | None:
    """The syntax tree of Python, None where it is none; without warnings, which come when the source is run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source, mode=mode)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _file(place: str) -> Path | None:
    """The file of a module, found as `python -m` finds it: first in this folder."""
    if place.endswith(".py"):
        return Path(place)
    folders, spec = ["", *sys.path], None
    # By the last part of its name: the parents are not imported.
    for name in place.split("."):
        spec = PathFinder.find_spec(name, folders)
        folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _bindings(tree: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Each name that a module gives a value, "*" for all that an import may bring, and the node, in order."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _SCOPES):
            yield getattr(node, "name", ""), node
            continue
        if isinstance(node, ast.alias):
            yield (node.asname or node.name.partition(".")[0]), node
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id, node
        yield from _bindings(node)


def _of_arguments(written: ast.arguments) -> inspect.Signature:
    places = [Parameter(one.arg, Parameter.POSITIONAL_ONLY) for one in written.posonlyargs]
    places += [Parameter(one.arg, Parameter.POSITIONAL_OR_KEYWORD) for one in written.args]
    required = len(places) - len(written.defaults)
    found = places[:required] + [one.replace(default=None) for one in places[required:]]
    if written.vararg:
        found.append(Parameter(written.vararg.arg, Parameter.VAR_POSITIONAL))
    for one, default in zip(written.kwonlyargs, written.kw_defaults, strict=True):
        found.append(Parameter(one.arg, Parameter.KEYWORD_ONLY, default=None if default else Parameter.empty))
    if written.kwarg:
        found.append(Parameter(written.kwarg.arg, Parameter.VAR_KEYWORD))
    return inspect.Signature(found)
