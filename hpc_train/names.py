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
    text = printable(str(name))
    if len(text) > longest:
        text = f"{text[: longest - 13]}...{text[-10:]}"
    # Matplotlib leaves labels that begin with _ out of legends.
    return f" {text}" if text.startswith("_") else text


def printable(text: str) -> str:
    r"""The text in one line: what cannot be printed is escaped, bytes that are no UTF-8 as the shell's \x.."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    # Python's stand-ins for bytes that are no UTF-8.
    if 0xDC80 <= (code := ord(character)) <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()
