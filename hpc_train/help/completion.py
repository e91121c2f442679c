"""The script that makes bash complete the commands of `hpc-train` and their options."""

from collections.abc import Iterable
from typing import Any

from hpc_train.help import page as help_page

_SCRIPT = """\
# Makes bash complete hpc-train. Write this to ~/.local/share/bash-completion/completions/hpc-train, or source it.
_hpc_train() {{
  local typed=${{COMP_WORDS[COMP_CWORD]}} before="${{COMP_WORDS[*]:1:COMP_CWORD-1}} " words=""
  if [[ $typed == -* ]]; then
    case "$before" in
{options}
    esac
  else # Other values are mostly files, which bash completes itself.
    case "$before" in
{following}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$typed"))
}}
complete -o default -F _hpc_train hpc-train
"""


def script(commands: dict[str, Any], others: Iterable[str]) -> str:
    """The script for bash.

    Args:
        commands: the options of each command, by its name of one or several words.
        others: further words that may follow hpc-train, also in groups of several.
    """
    following: dict[str, list[str]] = {}
    options = {"": ["--help", "--version"]}
    for name in others:
        _follow(following, name)
    for name, kind in commands.items():
        parts = help_page.commands(kind)
        for full, part in {f"{name} {word}": part for word, part in parts.items()}.items() if parts else [(name, kind)]:
            _follow(following, full)
            found = [option for group in help_page.groups(part).values() for option in group]
            options[full] = [word for option in found if not option.positional for word in option.words.split(", ")]
            for option in found:
                if option.positional and option.values:
                    following.setdefault(full, []).extend(option.values.strip("{}").split(","))
    # bash takes the first pattern that fits: so the longest name comes first.
    flags = [(name, f'"{name} "*' if name else '" "', [*options[name], "--help"]) for name in options]
    flags.sort(key=lambda case: -len(case[0]))
    return _SCRIPT.format(
        options="\n".join(_case(pattern, words) for _, pattern, words in flags),
        following="\n".join(_case(f'"{name} "', words) for name, words in following.items()),
    )


def _case(pattern: str, words: list[str]) -> str:
    return f'      {pattern}) words="{" ".join(dict.fromkeys(words))}" ;;'


def _follow(following: dict[str, list[str]], name: str) -> None:
    """Note that each word of the name may follow those before it."""
    words = name.split()
    for number, word in enumerate(words):
        following.setdefault(" ".join(words[:number]), []).append(word)
