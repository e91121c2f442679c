"""Run on N ranks by test_scripts.py: scripts one after the other, each in a folder of its own, as if it were the only.

Rank 0 writes {name: traceback, or ""} to the file of argument 1; the other arguments are FOLDER/script.py, each run in
its folder, a second time where the argument ends in "*2".
"""

import json
import os
import runpy
import sys
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
outcomes, out, arguments = {}, sys.argv[1], sys.argv[2:]
for argument in arguments:
    script, _, times = argument.partition("*")
    os.chdir(os.path.dirname(script))
    sys.argv = [script]
    failed = ""
    for _ in range(int(times or 1)):
        try:
            runpy.run_path(script, run_name="__main__")
        except BaseException:
            failed = traceback.format_exc()
        if "keras" in sys.modules:
            sys.modules["keras"].utils.clear_session()

    from hpc_train.parallel import gather_objects

    outcomes[os.path.basename(script)[:-3]] = "\n".join(text for text in gather_objects(failed) if text)

import horovod.tensorflow as hvd  # noqa: E402

if hvd.rank() == 0:
    with open(out, "w") as file:
        json.dump(outcomes, file)
hvd.shutdown()
