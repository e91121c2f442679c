"""Porting one Python script: its text in, its new text and the findings out."""

import libcst as cst

from hpc_train.port.arguments import close_gaps
from hpc_train.port.changes import Changes
from hpc_train.port.rules import ALL
from hpc_train.port.script import Script


def port(text: str) -> Changes:
    """Find what a script needs for Keras 3.

    Args:
        text: the script.

    Raises:
        SyntaxError: it is not Python 3; the message is one line, `lineno` the line.
    """
    try:
        script = Script(text)
    except cst.ParserSyntaxError as error:
        raise SyntaxError(error.message.split("\n")[0], ("", error.raw_line, error.raw_column, "")) from error
    for rule in ALL:
        rule.apply(script)
    close_gaps(script)
    script.fill_blocks()
    # A change that breaks the script is a fault of these rules: it must not be written.
    cst.parse_module(script.changes.result().decode())
    return script.changes
