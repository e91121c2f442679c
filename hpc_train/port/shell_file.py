"""Launch lines of shell scripts: what Open MPI's mpirun calls its options, and what MPICH's calls them."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from hpc_train.port.changes import Changes, Edit, Span

_LINE = re.compile(rb"(?:[^\\\n]|\\.|\\\r?\n)*", re.S)
_LAUNCHER = re.compile(rb"(?<![\w./#-])(?:[\w./${}-]*/)?(?:mpirun|mpiexec)(?=\s)")
# A word of a shell line: quoted and unquoted pieces without a blank between them.
_WORD = re.compile(rb"(?:'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.|\$\([^)]*\)|[^\s'\"\\;|&<>()])+", re.S)
_GAP = re.compile(rb"(?:[ \t]|\\\r?\n)*")
# Options of Open MPI that go, by how many values they have; without the dashes.
_DROPPED = {
    **dict.fromkeys(("mca", "gmca", "pmca"), 2),
    **dict.fromkeys(("prefix", "tune", "am", "cpus-per-proc", "cpus-per-rank", "rank-by", "output", "personality"), 1),
    **dict.fromkeys(
        (
            *("allow-run-as-root", "oversubscribe", "report-bindings", "display-map", "display-allocation", "nolocal"),
            *("bynode", "byslot", "nooversubscribe", "no-oversubscribe", "use-hwthread-cpus", "bycore", "bysocket"),
            *(
                "quiet",
                "q",
                "timestamp-output",
                "enable-recovery",
                "bind-to-none",
                "display-devel-map",
                "do-not-launch",
            ),
        ),
        0,
    ),
}
# Those that have another name.
_RENAMED = {
    "npernode": "-ppn",
    "N": "-ppn",
    "H": "-hosts",
    "host": "-hosts",
    "tag-output": "-prepend-rank",
    "output-filename": "-outfile-pattern",
    "wd": "-wdir",
    "bind-to-core": "-bind-to core",
    "bind-to-socket": "-bind-to socket",
}
_VALUES = {"npernode": 1, "N": 1, "H": 1, "host": 1, "output-filename": 1, "wd": 1}
# Those that both know, and the number of their values.
_BOTH = {
    **dict.fromkeys(("np", "n", "c", "bind-to", "wdir", "ppn", "hosts", "f", "genvlist", "envlist", "configfile"), 1),
    **dict.fromkeys(
        ("launcher", "launcher-exec", "iface", "rmk", "usize", "outfile-pattern", "membind", "errfile-pattern"), 1
    ),
    **dict.fromkeys(("genv", "env"), 2),
    **dict.fromkeys(
        ("genvall", "genvnone", "prepend-rank", "l", "verbose", "print-all-exitcodes", "version", "help"), 0
    ),
}
_OTHERS = ("x", "map-by", "hostfile", "machinefile")
_PER_NODE = r"ppr:(\w+|\$\w+|\$\{\w+\}):node(:.*)?"
_HOSTFILE = (
    "MPICH reads -f FILE with lines HOST:4 where Open MPI's file has HOST slots=4: write the file anew, then give -f"
)


@dataclass
class _Option:
    """An option of a launch line, with its values."""

    name: str
    values: list[str]
    span: Span

    @property
    def bare(self) -> str:
        """The name without dashes."""
        return self.name.lstrip("-")


def port(text: str) -> Changes:
    """Find what the launch lines of a shell script need for MPICH.

    Args:
        text: the script.
    """
    changes = Changes(text.encode())
    for line in _LINE.finditer(changes.text):
        start = line.start()
        if changes.text[start : line.end()].lstrip().startswith(b"#"):
            continue
        for launcher in _LAUNCHER.finditer(changes.text, start, line.end()):
            _launch(changes, launcher.end(), line.end())
    return changes


def _launch(changes: Changes, start: int, end: int) -> None:
    """The options between the launcher and the program."""
    options = _options(changes.text, start, end)
    binds = any(option.bare == "bind-to" and option.values != ["none"] for option in options)
    if not any(_is_open_mpi(option, binds) for option in options):
        return
    line = _line(changes, start)
    unknown = [option.name for option in options if not _is_known(option)]
    if unknown:
        reason = f"MPICH's mpirun may not know {', '.join(unknown)}: `horovodrun -np N` needs no such options"
        changes.leave(line, reason, Span(start, start))
        return
    passed = [option for option in options if option.bare == "x" and "=" not in option.values[0]]
    new = [_new_words(changes, option, passed) for option in options]
    for (goes, text), run in itertools.groupby(zip(new, options, strict=True), lambda one: (one[0] == "", one[0])):
        run_options = [option for _, option in run]
        whole = Span(run_options[0].span.start, run_options[-1].span.end)
        if goes:
            _remove(changes, whole, run_options)
        elif text is not None:
            changes.add(_line(changes, whole.start), _reason(run_options[0]), Edit(whole, (text,)))


def _new_words(changes: Changes, option: _Option, passed: list[_Option]) -> str | None:
    """What MPICH calls an option: "" where it goes, None where it stays."""
    bare, value = option.bare, option.values[0] if option.values else ""
    if option in passed:
        names = ",".join(one.values[0] for one in passed)
        return f"-genvlist {names}" if option is passed[0] else ""
    if bare == "x":
        name, _, content = value.partition("=")
        return f"-genv {name} " + (content or '""')
    if bare in ("hostfile", "machinefile"):
        changes.leave(_line(changes, option.span.start), _HOSTFILE, option.span)
        return None
    if per_node := re.fullmatch(_PER_NODE, value) if bare == "map-by" else None:
        return f"-ppn {per_node[1]}"
    if bare in _DROPPED or (bare == "map-by" and value == "slot"):
        return ""
    if bare == "map-by" and value == "node":
        return "-ppn 1"
    return " ".join([_RENAMED[bare], *option.values]) if bare in _RENAMED else None


def _reason(option: _Option) -> str:
    if option.bare == "x":
        return "MPICH passes variables with -genvlist A,B or -genv NAME VALUE; -x is Open MPI's"
    if option.bare == "map-by":
        known = "maps by slot without being told, and knows no slots" if option.values == ["slot"] else "calls it -ppn"
        return f"-map-by {option.values[0]}: MPICH {known}"
    if option.bare in _RENAMED:
        return f"MPICH calls {option.name} {_RENAMED[option.bare]}"
    return f"{' '.join([option.name, *option.values])}: only Open MPI knows it"


def _remove(changes: Changes, span: Span, options: list[_Option]) -> None:
    """Leave options out, with the blanks before them, or with their line if nothing else is on it."""
    text, start = changes.text, span.start
    while text[start - 1 : start] in (b" ", b"\t"):
        start -= 1
    rest = re.match(rb"[ \t]*(\\?\r?\n)?", text[span.end :])
    if text[start - 1 : start] != b"\n":
        edit = Edit(Span(start, span.end))
    elif rest[1] and rest[1].startswith(b"\\"):
        edit = Edit(Span(start, span.end + rest.end()))
    else:
        edit = Edit(Span(span.start, span.end + len(rest[0].rstrip(b"\r\n"))))
    changes.add(_line(changes, options[0].span.start), _reason(options[0]), edit)
    for option in options[1:]:
        changes.add(_line(changes, option.span.start), _reason(option))


def _line(changes: Changes, place: int) -> int:
    return changes.text.count(b"\n", 0, place) + 1


def _options(text: bytes, start: int, end: int) -> list[_Option]:
    """The options before the program, each with its values; none if values are missing."""
    words = []
    place = _GAP.match(text, start, end).end()
    while word := _WORD.match(text, place, end):
        words.append(word)
        place = _GAP.match(text, word.end(), end).end()
    found, at = [], 0
    while at < len(words) and words[at][0].startswith(b"-"):
        name = words[at][0].decode()
        count = _count(name.lstrip("-"))
        if at + count >= len(words):
            return []
        values = [word[0].decode() for word in words[at + 1 : at + 1 + count]]
        found.append(_Option(name, values, Span(words[at].start(), words[at + count].end())))
        at += 1 + count
    return found


def _count(bare: str) -> int:
    if bare in _OTHERS:
        return 1
    return next((table[bare] for table in (_DROPPED, _VALUES, _BOTH) if bare in table), 0)


def _is_known(option: _Option) -> bool:
    return any(option.bare in table for table in (_DROPPED, _RENAMED, _BOTH, _OTHERS))


def _is_open_mpi(option: _Option, binds: bool) -> bool:
    """Whether MPICH refuses an option, or means something else by it; it looks at -map-by only if it binds."""
    if option.bare == "map-by":
        return bool(re.fullmatch(_PER_NODE, option.values[0])) or option.values[0] == "node" or binds
    return any(option.bare in table for table in (_DROPPED, _RENAMED, ("x", "hostfile")))
