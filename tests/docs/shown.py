"""The commands and programs that README.md, CONTRIBUTING.md and the pages in docs/ show."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from launch import REPOSITORY
from markdown_it import MarkdownIt

_SHELL = ("bash", "console", "sh", "shell")
# In a block without a language, what begins with one of these is a command; the rest is output.
_PROGRAMS = r"([A-Z_]+=\S+ )*(\S*/)?(hpc-train|horovodrun|mpirun|srun|sbatch|apptainer|make|python3?|build\.sh)\b"


@dataclass(frozen=True)
class Command:
    """One command line as a page shows it, without its comment, and with the lines that a backslash joins."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Program:
    """A block of Python, or the new side of a block of changes to one."""

    page: str
    line: int
    text: str
    changed: bool = False

    @property
    def file(self) -> str | None:
        """The name of the script, where the block is a whole one that names itself; of changes: script.py."""
        if titled := re.match(r"# (\w+\.py)\n", self.text):
            return titled[1]
        named = re.search(r"""main\(.*"(?:python -m hpc_train\.)?(\w+)(?:\.py)?"\)\s*$""", self.text)
        return f"{named[1]}.py" if named else "script.py" if self.changed else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """The files that are read; reference/ is made from the code."""
    docs = REPOSITORY / "docs"
    written = [page for page in sorted(docs.rglob("*.md")) if docs / "reference" not in page.parents]
    return [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *written]


def contents(page: Path) -> list[Command | Program]:
    """The command lines and blocks of Python of a page, in order."""
    found: list[Command | Program] = []
    for language, line, block in _blocks(page.read_text()):
        if language == "python":
            found.append(Program(name(page), line, block))
        elif language == "diff":
            after = [text[1:] for text in block.splitlines() if not text.startswith("-")]
            found.append(Program(name(page), line, "\n".join(after) + "\n", changed=True))
        elif language in ("", *_SHELL):
            lines = [(number, re.sub(r"(^|\s+)#\s.*", "", text)) for number, text in _lines(language, block)]
            found += [Command(name(page), line + number, text) for number, text in lines if text]
    return found


def commands(page: Path) -> list[Command]:
    """The command lines of a page."""
    return [item for item in contents(page) if isinstance(item, Command)]


def programs(page: Path) -> list[Program]:
    """The blocks of Python of a page."""
    return [item for item in contents(page) if isinstance(item, Program)]


def split(text: str) -> list[str]:
    """Words of a command line as a shell takes them; operators such as && are words."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def simple_commands(text: str) -> list[list[str]]:
    """The simple commands of a command line: what stands between operators."""
    found: list[list[str]] = [[]]
    for word in split(text):
        if word and set(word) <= set("&|;()"):
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words]


def _blocks(markdown: str) -> list[tuple[str, int, str]]:
    """(language, number of the line before, text) of each code block."""
    tokens = MarkdownIt().parse(markdown)
    return [
        (token.info.split()[0] if token.info else "", token.map[0] + (token.type == "fence"), token.content)
        for token in tokens
        if token.type in ("fence", "code_block")
    ]


def _lines(language: str, block: str) -> list[tuple[int, str]]:
    """(number from 1, command) for each command of a block; a backslash at the end joins lines."""
    joined, begun = [], None
    for number, line in enumerate(block.splitlines(), 1):
        begun = begun or (number, "")
        text = begun[1] + line.removesuffix("\\")
        begun = (begun[0], text)
        if not line.endswith("\\"):
            joined.append((begun[0], " ".join(text.split())))
            begun = None
    prompted = [(number, line[2:]) for number, line in joined if line.startswith("$ ")]
    if prompted or language == "console":
        return prompted
    if language in _SHELL:
        return joined
    return [(number, line) for number, line in joined if re.match(_PROGRAMS, line)]


def name(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(REPOSITORY).as_posix()


def code_spans(page: Path) -> list[str]:
    """Code within the text of a page."""
    inline = [token for token in MarkdownIt().enable("table").parse(page.read_text()) if token.type == "inline"]
    return [child.content for token in inline for child in token.children or () if child.type == "code_inline"]
