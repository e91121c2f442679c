"""What the tests of `hpc-train port` share."""

import importlib.util

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("libcst") else ["test_*.py"]


@pytest.fixture
def ported():
    """A function from a script's text to its new text, the reasons of the changes and what is left, by line."""
    from hpc_train.port.python_file import port

    def call(text):
        changes = port(text)
        new = changes.result().decode()
        again = port(new)
        assert (again.result().decode(), again.made) == (new, []), "a second time changes it again"
        touched = {
            line for one in changes.made for first, last in changes.lines(one) for line in range(first, last + 1)
        }
        before = text.split("\n")
        gone = [number for number, line in enumerate(before, 1) if line and line not in new.split("\n")]
        assert set(gone) <= touched, "a line changed without a reason"
        return new, [one.reason for one in changes.made], [(one.line, one.reason) for one in changes.left]

    return call
