"""Names that data and models brought along, as tables and pictures show them: text, and never a formula."""

import re

# Where a spreadsheet begins to read a formula: at the start of a cell, also by other separators than the comma; the
# wide signs of East Asian keyboards count there as well. Source: OWASP, "CSV Injection".
_FORMULA = re.compile("(?:^|(?<=[;\t\r\n]))(?=[^\\S\t\r\n]*[=+\\-@\uff1d\uff0b\uff0d\uff20])|^(?=[\t\r\n])")


def cell(name: str) -> str:
    """A name as a cell of CSV: an apostrophe makes text of what a spreadsheet would take for a formula.

    Numbers and all other names stay as they are.
    """
    try:
        float(name)
    except ValueError:
        return _FORMULA.sub("'", name)
    return name


def label(name: str, longest: int = 40) -> str:
    """A name as a short line for pictures and tables; what cannot be printed is escaped.

    Args:
        name: any text.
        longest: characters, from which on its middle is left out.
    """
    text = "".join(map(_shown, str(name)))
    if len(text) > longest:
        text = f"{text[: longest - 13]}...{text[-10:]}"
    # Matplotlib leaves labels that begin with _ out of legends.
    return f" {text}" if text.startswith("_") else text


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
