"""`--build-args units=64 name=wide`: values for arguments of the function that makes a user's model."""

import ast
import difflib
import inspect
from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any

from hpc_train.errors import UserError
from hpc_train.names import printable
from hpc_train.training.own_model import written


def read(words: Sequence[str]) -> dict[str, Any]:
    """The values by name: numbers, True, False, None, lists and tuples as Python has them, else text.

    Args:
        words: such as "units=64" or "name=wide"; the value of "name='64'" is text.

    Raises:
        UserError: a word has no name or no value, or a name is there twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        option = f"--build-args {printable(word)}"
        if not (name.isidentifier() and text):
            raise UserError(f"{option}: write NAME=VALUE, with the name of an argument, as in --build-args units=64")
        if name in found:
            raise UserError(f"{option}: {name} is there twice; give it once")
        # As text, false would count as true.
        if text.lower() in ("true", "false") and text != text.capitalize():
            raise UserError(f"{option}: write {name}={text.capitalize()}, or for text {name}=\"'{text}'\"")
        found[name] = _value(text)
    return found


def check(reference: str, given: Mapping[str, Any]) -> None:
    """UserError, before anything is imported, where the text of a function's file says that it does not take these."""
    if signature := written.signature(reference):
        bind(signature, None, given, reference)


def bind(signature: inspect.Signature, catalogue, given: Mapping[str, Any], reference: str) -> tuple:
    """What a function is called with besides arguments by name: the catalogue, if it takes it, or nothing.

    Args:
        signature: of the function.
        catalogue: of the training data.
        given: the arguments by name.
        reference: of the function, for messages.

    Raises:
        UserError: the function has no such argument, or needs another one.
    """
    for_catalogue, names = _for_catalogue(signature), by_name(signature)
    for name in given:
        if name == for_catalogue:
            remedy = "leave it out" if name == "catalogue" else "give it a default in the file, and it takes the value"
            raise UserError(f"--build-args {name}: {reference} gets the catalogue of the data as {name}; {remedy}")
        if name not in names and not takes_any(signature):
            near = difflib.get_close_matches(name, names, 1)
            known = f"did you mean {near[0]}? It takes" if near else "it takes"
            listed = ", ".join(names) or f"none by name; add {name} to its definition"
            raise UserError(f"--build-args {name}: {reference} has no argument {name}; {known} {listed}")
    places = (catalogue,) if for_catalogue else ()
    try:
        signature.bind(*places, **given)
    except TypeError as error:
        remedy = "its first argument may take the catalogue of the data; give others as --build-args NAME=VALUE"
        raise UserError(f"{reference}: {error}; {remedy}") from error
    return places


def by_name(signature: inspect.Signature) -> list[str]:
    """The names of the arguments that can be given, without that of the catalogue."""
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    names = [name for name, one in signature.parameters.items() if one.kind in kinds]
    return [name for name in names if name != _for_catalogue(signature)]


def takes_any(signature: inspect.Signature) -> bool:
    """Whether arguments of any name can be given."""
    return any(one.kind is Parameter.VAR_KEYWORD for one in signature.parameters.values())


def _for_catalogue(signature: inspect.Signature) -> str | None:
    """The argument that gets the catalogue: the first one, if it has no default or is named so."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    first = next((one for one in signature.parameters.values() if one.kind in kinds), None)
    return first.name if first and (first.default is Parameter.empty or first.name == "catalogue") else None


def _value(text: str):
    tree = written.parsed(text.strip(), "eval")
    try:
        value = ast.literal_eval(tree) if tree else text
    except (ValueError, TypeError, RecursionError):
        return text
    return value if _is_plain(value) else text


def _is_plain(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
