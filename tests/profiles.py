"""Reads the profiles that TensorFlow writes."""

from pathlib import Path


def steps_marked(file: Path) -> list[int]:
    """The numbers of the steps that a profile has as root events, which TensorBoard's pages take for steps."""
    from tensorflow.tsl.profiler.protobuf.xplane_pb2 import XSpace

    found = []
    for plane in XSpace.FromString(file.read_bytes()).planes:
        names = {key: value.name for key, value in plane.stat_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                stats = {names[stat.metadata_id]: stat.int64_value for stat in event.stats}
                found += [stats["step_num"]] if "step_num" in stats and stats.get("_r") == 1 else []
    return found
