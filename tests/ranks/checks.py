"""Checks that all ranks make in one launch."""

import json
import sys
import traceback


def write_outcomes(checks, world) -> None:
    """Call each check on every rank. Rank 0 writes {name: what failed and where, or ""} to the file of argument 1."""
    from hpc_train.parallel import gather_objects

    outcomes = {}
    for check in checks:
        try:
            check()
            mine = None
        except Exception:
            mine = f"rank {world.rank}:\n{traceback.format_exc()}"
        outcomes[check.__name__] = "\n".join(text for text in gather_objects(mine) if text)
    if world.is_root:
        with open(sys.argv[1], "w") as file:
            json.dump(outcomes, file)
