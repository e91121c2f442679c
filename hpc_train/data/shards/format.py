"""Constants of the format in FORMAT.md: names, versions and markers."""

FORMAT = "hpc-train shard"
VERSION = 2
ENCODED_VERSION = 3
# Of shards that name their arrays.
PARTS_VERSION = 4
# The arrays of all other shards.
PAIR = ["inputs", "targets"]
# With the units by which programs for CF's NetCDF recognise them.
COORDINATES = {"latitude": "degrees_north", "longitude": "degrees_east", "time": "seconds since 1970-01-01 00:00:00"}
# Of an image in a shard; a header of a few bytes may claim 65,535 x 65,535.
MOST_PIXELS = 2**27
JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
