"""Words of options that may have a name before them, as images=a/b."""

import re


def split_word(word: str) -> tuple[str, str]:
    """("images", "a/b") of "images=a/b"; ("", word) of a word without a name."""
    match = re.fullmatch(r"(\w[\w.-]*)=(.+)", word, re.DOTALL)
    return (match[1], match[2]) if match else ("", word)
