"""The message of a UserError is one line that can be printed, whatever a file holds."""

from hypothesis import given
from hypothesis import strategies as st

from hpc_train.errors import UserError, errors_in


@given(st.text(st.characters(), max_size=50))
def test_what_cannot_be_printed_is_escaped(text):
    message = str(UserError(f"a.csv: has no column {text}; fix it"))
    assert message.isprintable()
    assert len(message.splitlines()) == 1
    if text.isprintable():
        assert message == f"a.csv: has no column {text}; fix it"


def test_names_of_files_that_are_no_utf8_can_be_written_anywhere():
    assert str(UserError("\udcff.h5: broken")).encode("ascii") == rb"\xff.h5: broken"


def test_a_long_message_keeps_what_is_wrong_and_what_to_do():
    message = str(UserError("a.csv: line 3 " + "x" * 10**6 + "; fix the line"))
    assert message.startswith("a.csv: line 3 xxx")
    assert message.endswith("xxx; fix the line")
    assert len(message) < 2000


def test_the_errors_of_a_log_are_found_under_each_launchers_marks():
    log = [
        "[0]<stderr>:error: rank 0: no statistics.h5",
        "[1] error: rank 1: no statistics.h5",
        "2: error: rank 2: no statistics.h5",
        "error: plain",
        "a line that speaks of an error: no",
        "YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)",
    ]
    said = [f"error: rank {rank}: no statistics.h5" for rank in range(3)]
    assert errors_in(log) == [*said, "error: plain"]
