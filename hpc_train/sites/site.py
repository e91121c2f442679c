"""A site: what its scheduler wants to be asked, and what its jobs need; read from a small TOML file."""

import datetime
import difflib
import re
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import typeguard

from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KNOWN = Path(__file__).parent / "known"
OWN = Path("slurm", "site.toml")


@dataclass(frozen=True)
class Partition:
    """Nodes of one kind that jobs ask for by a name: a partition, a queue or a quality of service."""

    name: str
    gpus_a_node: int
    cores_a_node: int
    """Cores that jobs may use."""
    types: list[str] = field(default_factory=list)
    """Names of the GPUs, for sites that want them; the first is taken by default."""
    whole_nodes: bool = False
    """Whether a job gets whole nodes only."""
    most_nodes: int = 0
    """Of a job; 0 if it is not known."""
    most_gpus: int = 0
    """Of a job, where this is less than all GPUs of its nodes."""
    least_nodes: int = 1
    most_time: str = ""
    """The longest time limit, as [DAYS-]HOURS:MINUTES:SECONDS; empty if it is not known."""
    shorter: dict[str, str] = field(default_factory=dict)
    """The longest limits of smaller jobs: for at most so many nodes, so much."""


@dataclass(frozen=True)
class Site:
    """How a site wants jobs; forms in braces are filled for each job."""

    name: str
    """Of the file."""
    title: str
    scheduler: Literal["slurm", "pbs", "lsf"]
    partitions: list[Partition]
    """The first that can hold a job is taken by default."""
    sources: list[str] = field(default_factory=list)
    """Public pages that this was read from."""
    read: datetime.date | None = None
    """When."""
    partition: str = "--partition={partition}"
    """The option that chooses a partition."""
    gpus: str = "--gpus-per-node={gpus_a_node}"
    """The option that asks for GPUs, with {gpus_a_node}, {gpus}, {nodes}, {cores_a_node} and {type}; or empty."""
    account: Literal["needed", "optional"] = "optional"
    options: list[str] = field(default_factory=list)
    """More options of each job."""
    launcher: str = ""
    """What the job tries first as the launcher of the ranks, before those that it finds."""
    modules: str = ""
    node_local: str = ""
    """A folder on each node's own disk; each node expands variables in it."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables of the ranks. Values may refer to other variables."""
    between_nodes: dict[str, str] = field(default_factory=dict)
    """Such variables for jobs of several nodes only."""
    note: str = ""
    """Printed with each job."""
    untried: str = ""
    """What could not be tried."""


def known() -> list[str]:
    """The names of the sites that come with hpc-train."""
    return sorted(path.stem for path in KNOWN.glob("*.toml"))


def find(wanted: str) -> Site:
    """The site of a name or a file; for an empty text that of slurm/site.toml here.

    Raises:
        UserError: there is none, or its file is not one of a site.
    """
    path = Path(wanted) if wanted else OWN
    if wanted in known():
        path = KNOWN / f"{wanted}.toml"
    elif wanted and not path.is_file() and not path.suffix:
        near = difflib.get_close_matches(wanted.lower(), known(), 1, 0.5)
        guess = f"did you mean {near[0]}? It knows" if near else "it knows"
        raise UserError(f"--site {wanted}: {guess} {', '.join(known())}; for another: `hpc-train submit --new-site`")
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError as error:
        how = f"give --site NAME ({', '.join(known())}) or FILE; `hpc-train submit --new-site` writes {OWN}"
        raise UserError(f"there is no {path}: {how}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the site's file {path}: {error}") from error
    return read(text, path)


def read(text: str, path: Path) -> Site:
    """The site that a file's text describes.

    Raises:
        UserError: it is not TOML, or has a key or value that a site does not have.
    """
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    if not isinstance(partitions := found.get("partitions"), dict):
        raise UserError(f"{path} has no table [partitions.NAME], with gpus_a_node and cores_a_node of each partition")
    made = [_made(Partition, {"name": name, **_table(one, name, path)}, path) for name, one in partitions.items()]
    for one in made:
        if one.gpus_a_node < 1 or one.cores_a_node < one.gpus_a_node:
            raise UserError(f"{path}: {one.name}: a node has at least one GPU, and a core for each")
        for limit in (one.most_time, *one.shorter.values()):
            seconds(limit or "1", f"{path}: {one.name}: {limit}")
        if wrong := [nodes for nodes in one.shorter if not nodes.isdecimal()]:
            raise UserError(f"{path}: {one.name}: shorter: {wrong[0]!r} is no number of nodes")
    site = _made(Site, {**found, "name": path.stem, "partitions": made}, path)
    if wrong := [name for name in (*site.environment, *site.between_nodes) if not re.fullmatch(r"[A-Za-z_]\w*", name)]:
        raise UserError(f"{path}: {wrong[0]!r} is no name of a variable")
    for form, names in ((site.partition, {"partition"}), (site.gpus, set(PLACES))):
        try:
            form.format_map(dict.fromkeys(names, ""))
        except (KeyError, ValueError, IndexError, AttributeError) as error:
            raise UserError(f"{path}: {form!r} may have {', '.join(sorted(names))} in braces: {error}") from error
    return site


def save(path: Path, text: str, remedy: str = "") -> None:
    """Write a file, and its folder where that is missing.

    Raises:
        UserError: it cannot be written; the line ends in the remedy.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}{remedy}") from error


def seconds(time: str, named: str) -> int:
    """Seconds of a time limit such as 90 (minutes), 1:30:00 or 2-00:00:00.

    Args:
        time: the text.
        named: where it stands, for the error.

    Raises:
        UserError: it is none.
    """
    if re.fullmatch(r"\d{1,6}", time):
        return int(time) * 60
    if not (found := re.fullmatch(r"(?:(\d{1,3})-)?(\d{1,4}):([0-5]\d):([0-5]\d)", time)):
        # Schedulers differ in what 1:30 means.
        raise UserError(f"{named}: write minutes, HOURS:MINUTES:SECONDS or DAYS-HOURS:MINUTES:SECONDS")
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


PLACES = ("gpus", "gpus_a_node", "nodes", "cores_a_node", "type")


def _table(value: Any, name: str, path: Path) -> dict:
    if not isinstance(value, dict):
        raise UserError(f"{path}: partitions.{name} is {value!r}; write a table, [partitions.{name}]")
    return value


def _made(kind: type, values: dict, path: Path):
    allowed = {one.name: one.type for one in fields(kind)}
    for key, value in values.items():
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, 1)
            guess = f"did you mean {near[0]}?" if near else f"it may have {', '.join(allowed)}"
            raise UserError(f"{path}: {kind.__name__.lower()} has no {key}; {guess}")
        try:
            typeguard.check_type(value, allowed[key])
        except typeguard.TypeCheckError as error:
            raise UserError(f"{path}: {key}: {error}") from error
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{path}: {str(error).partition('() ')[2]}") from error
