"""What runs on the ranks of another framework: plain scripts, each started by its path in a Python that may lack ours.

SCRIPT FOLDER RANK: FOLDER holds job.json, inputs.npy and targets.npy (see `measure`); rank N leaves rank-N.json there.
"""
