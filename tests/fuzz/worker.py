"""A process that reads files with one of the readers and says how each ended: a crash or hang ends only this process.

Reads lines {"path": ..., "alone": ...} and answers each with {"outcome", "text", "seconds", "megabytes"}.
"""

import json
import os
import re
import resource
import sys
import time
import traceback
import warnings

from readers import READERS

from hpc_train.errors import UserError

_ADDRESS_SPACE = 16 * 2**30


def main(name: str) -> None:
    """Answer lines until there are no more."""
    reader, _, alone = READERS[name]
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    warnings.simplefilter("ignore")
    # What libraries print goes to the log; the answers have a pipe of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        case = json.loads(line)
        answers.write(json.dumps(_outcome(alone if case["alone"] else reader, case["path"])) + "\n")
        answers.flush()


def _outcome(reader, path: str) -> dict:
    # Begins the count of the largest memory anew: proc(5), clear_refs.
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    start, text = time.process_time(), ""
    try:
        reader(path)
        outcome = "read"
    except UserError as error:
        text, outcome = str(error), "line"
        if len(text.splitlines()) != 1 or len(text) > 2000:
            outcome = "not one line"
    except BaseException:
        text, outcome = traceback.format_exc(), "traceback"
    with open("/proc/self/status") as file:
        peak = int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) // 1024
    return {"outcome": outcome, "text": text, "seconds": time.process_time() - start, "megabytes": peak}


if __name__ == "__main__":
    main(sys.argv[1])
