"""Files that the suite itself wrote: read in one way, and believed only as far as they say that they are whole."""
