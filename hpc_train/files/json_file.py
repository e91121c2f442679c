"""JSON files of the suite: written with a checksum, read with a schema; what is wrong with one is one line."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from hpc_train.errors import UserError
from hpc_train.files.whole import ELSEWHERE, atomic_path

_CHECKSUM = "checksum"


def write_json(path: Path, value: Mapping, remedy: str = ELSEWHERE) -> None:
    """Write `value` to `path` as indented JSON with a checksum, whole or not at all.

    Args:
        path: of the file.
        value: of JSON's types; others are written as text.
        remedy: what the user can do if it cannot be written.

    Raises:
        NotWritten: it cannot be written.
    """
    plain = json.loads(json.dumps(value, default=str))
    # The first line, so that who edits the file can remove it and leaves JSON.
    text = json.dumps({_CHECKSUM: _digest(plain), **plain}, indent=2) + "\n"
    with atomic_path(path, remedy, len(text)) as temporary:
        temporary.write_text(text)


def read_json(path: Path, schema: Mapping[str, Any], remedy: str) -> dict:
    """The content of a JSON file, without its checksum.

    Args:
        path: of the file.
        schema: types of some entries; one that is not there counts as None.
        remedy: what to do about a file that is damaged.

    Raises:
        UserError: the file cannot be read, was changed, or is not of the schema.
    """
    value = parse(read_text(path, remedy), str(path), schema, remedy)
    checksum = value.pop(_CHECKSUM, None)
    if checksum not in (None, _digest(value)):
        raise UserError(
            f"{path}: was changed after it was written (checksum); {remedy}, or if the change is meant, remove the "
            f'line "{_CHECKSUM}"'
        )
    return value


def read_text(path: Path, remedy: str) -> str:
    """The text of a file in UTF-8.

    Raises:
        UserError: it cannot be read, or is in another encoding.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not in UTF-8 (byte {error.start}); save it in UTF-8, or {remedy}") from error


def parse(text: str, where: str, schema: Mapping[str, Any], remedy: str) -> dict:
    """The object in a text of JSON.

    Args:
        text: the JSON.
        where: file, or file and line, which messages begin with.
        schema, remedy: as of `read_json`.

    Raises:
        UserError: the text is not JSON of the schema.
    """
    try:
        value = json.loads(text)
    # Numbers of thousands of digits are a ValueError too.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: holds no JSON object; {remedy}")
    for name, kind in schema.items():
        check(value.get(name), kind, f"{where}: {name!r}", remedy)
    return value


def check(value, kind: Any, where: str, remedy: str) -> None:
    """Compare a value with a type such as list[dict[str, int]].

    Raises:
        UserError: it is of another type.
    """
    try:
        check_type(value, kind, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
    except TypeCheckError as error:
        raise UserError(f"{where} is wrong ({error}); {remedy}") from error


def _digest(value: dict) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode("utf-8", "surrogatepass"))
