"""The data path: shards on disk, the catalogue of their samples, the plan of who reads which ones, the reader."""
