"""Finds places in a bash script where text that nobody checked would be calculated with, or run.

Bash runs commands that stand in text it calculates with: with x='a[$(date)]', `$((x))`, `[[ x -eq 0 ]]` and
`${list[x]}` run `date`. The scan goes through the script line by line. It knows which variables hold whole numbers:
those that were assigned from a digit, arithmetic or a count, and those that `number NAME` or `if whole "$NAME"`
checked. No other may stand in arithmetic. What evaluates text in other ways (`eval`, `declare -i`, `printf -v`,
`source` and so on) is reported too.
"""

import re

_NAME = r"[A-Za-z_]\w*"
_START = r"(?:^|[;&|{(!`]|\b(?:then|do|else|if|elif|while|until))\s*"
_NUMERIC = re.compile(r"""^"?(\d+|\$\(\(.*\)\)|\$[#?$!]|\$\{#[^}]*\}|\$\{?SECONDS\}?)"?$""")
_ASSIGNED = re.compile(rf"(?:^|[\s;&|(])({_NAME})\+?=((?:\$\(\([^;]*?\)\)|\$\([^)]*\)|\"[^\"]*\"|[^\s;&|)])*)")
_TAKES_NAMES = re.compile(_START + r"(?:IFS=\S*\s+)?(?:read|mapfile|readarray|getopts|for|select)\b([^;|<&]*)")
_EVALUATES = (
    (_START + r"(?:eval|let)\s", "eval or let"),
    (r"\b(?:declare|local|typeset|readonly|export)\s+(?:-\w+\s+)*-\w*[in]", "an attribute that evaluates"),
    (r"\b(?:declare|typeset|readonly|export|unset)\s+(?:-\w+\s+)*\"?\$", "a name from text"),
    (r"\bprintf\s+-v", "printf -v"),
    (r"(?:\btest|\[\[?)\s+(?:!\s+)?-v\b", "test -v"),
    (r"\[\[.*\s-(?:eq|ne|lt|le|gt|ge)\s", "arithmetic in [[ ]]"),
    (r"\$\[", "$[ ]"),
    (r"\$\{![^}]", "a variable's name from text"),
    (r"\$\{[^}]*@P\}", "a prompt's expansion"),
    (_START + r"(?:source|\.)\s", "a file that is run"),
    (r"\b(?:ba|da|z|k)?sh\s+(?:-\w+\s+)*-\w*c\s+\"?[^'\"]*\$", "a shell that runs text"),
    (r"\btrap\s+(?:--\s+)?(?:\"[^\"]*)?\$", "a trap made of text"),
    (r"\bmapfile\b.*\s-C\b", "mapfile -C"),
)


def unchecked(script: str, allowed: frozenset[str] = frozenset()) -> list[str]:
    """Lines of `script` that may evaluate unchecked text, each with the reason; those of `allowed` are left out."""
    return _Scan(_Scan().go(script).outside).go(script, allowed).found


class _Scan:
    """One walk through a script; `known` are names that hold numbers in every function."""

    def __init__(self, known=()):
        self.known, self.found, self.assigned = {"SECONDS", *known}, [], set()
        self.checked = self.outside = set(self.known)

    def go(self, script: str, allowed: frozenset[str] = frozenset()) -> "_Scan":
        inside, here = False, set()
        for line in _lines(script):
            if re.match(rf"{_NAME}\(\)\s*{{", line):
                inside, self.outside, self.checked = True, self.checked, set(self.known)
            if re.match(r"\s*(else|elif|fi)\b", line):
                self.checked, here = self.checked - here, set()
            new = set(re.findall(rf'(?:^\s*if|&&)\s+whole "\$\{{?({_NAME})\}}?"', line)) - self.checked
            here |= new
            self.checked = self.checked | new | _demanded(line)
            if line.strip() not in allowed:
                self.report(line)
            self.assign(line, inside)
            if inside and re.search(r"^\}|^\S.*\}\s*$", line):
                inside, self.checked = False, self.outside
        self.outside = self.checked - self.assigned
        return self

    def report(self, line: str) -> None:
        self.found += [f"{reason}: {line.strip()}" for pattern, reason in _EVALUATES if re.search(pattern, line)]
        names = (name for inner in _arithmetic(line) for name in _names(inner))
        self.found += [f"{name} in arithmetic: {line.strip()}" for name in names if name not in self.checked]

    def assign(self, line: str, inside: bool) -> None:
        given = {name for words in _TAKES_NAMES.findall(line) for name in re.findall(_NAME, words.partition(" in ")[0])}
        for name, value in _ASSIGNED.findall(line):
            (self.checked.add if _NUMERIC.match(value) else given.add)(name)
        self.checked |= set(re.findall(rf"for \(\(\s*({_NAME})\s*=", line))
        self.checked -= given - set(re.findall(rf"for \(\(\s*({_NAME})\s*=", line))
        self.assigned |= given if inside else set()


def _lines(script: str) -> list[str]:
    """The script's lines, without comments, texts in single quotes and here-documents; continued ones in one piece."""
    script = re.sub(
        r"(<<-?\s*['\"]?(\w+)['\"]?[^\n]*\n).*?\n\s*\2(?=\n|$)", r"\1", script.replace("\\\n", " "), flags=re.S
    )
    kept, place, quoted = [], 0, False
    while place < len(script):
        letter = script[place]
        if letter == "\\":
            kept.append(script[place : place + 2])
            place += 2
            continue
        if letter == '"':
            quoted = not quoted
        elif not quoted and letter == "'":
            end = script.find("'", place + 1)
            kept.append("''")
            place = (end if end > 0 else len(script)) + 1
            continue
        elif not quoted and letter == "#" and (place == 0 or script[place - 1].isspace()):
            place = script.find("\n", place) if "\n" in script[place:] else len(script)
            continue
        kept.append(letter)
        place += 1
    return "".join(kept).splitlines()


def _demanded(line: str) -> set[str]:
    """Names that a line checks with `number`, which ends the job."""
    calls = re.findall(r"(?:^|[;&]|\bthen)\s*number\s+([\w ]+)", line)
    return {name for words in calls for name in words.split()}


def _arithmetic(line: str):
    """What stands in the line's arithmetic: of (( )), of subscripts, and of parts of a string."""
    for start in re.finditer(r"\(\(", line):
        depth, end = 2, start.end()
        while end < len(line) and depth:
            depth += {"(": 1, ")": -1}.get(line[end], 0)
            end += 1
        inner = line[start.end() : end - 2]
        # What a `for ((i = 1; ...))` assigns first is its own.
        loop = re.match(rf"\s*({_NAME})\s*=(?!=)(.*)", inner)
        yield re.sub(rf"\b{loop[1]}\b", "0", loop[2]) if loop else inner
    yield from re.findall(rf"\$\{{[#!]?{_NAME}\[([^]]*)\]", line)
    yield from re.findall(rf"(?:^|\s){_NAME}\[([^]]*)\]\+?=", line)
    yield from re.findall(rf"\$\{{(?:{_NAME}|[@*\d])(?:\[[^]]*\])?:\s*([^-=+?}}][^}}]*)\}}", line)


def _names(inner: str) -> list[str]:
    """Variables in a piece of arithmetic; arguments and what commands print are variables too."""
    found = ["a command's output"] * bool(re.search(r"\$\((?!\()|`", inner))
    found += ["an argument"] * bool(re.search(r"\$\{?[\d*@]", inner))
    plain = re.sub(r"\$\([^)(]*\)|\$\{#[^}]*\}|\$[#?$!]|\d+#|\b\d\w*", " ", inner)
    return found + re.findall(_NAME, plain)
