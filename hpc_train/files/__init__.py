"""Files: written whole or not at all, read as what was written, and believed no further than their size goes."""
