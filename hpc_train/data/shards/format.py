"""What FORMAT.md fixes: names, versions and marks."""

FORMAT = "hpc-train shard"
VERSION = 2
ENCODED_VERSION = 3
ARRAYS = ("inputs", "targets")
# With their units, by which programs for CF's NetCDF know them.
COORDINATES = {"latitude": "degrees_north", "longitude": "degrees_east", "time": "seconds since 1970-01-01 00:00:00"}


JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
