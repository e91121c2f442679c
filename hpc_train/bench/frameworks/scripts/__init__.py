"""Scripts for the ranks of another framework, each started by its path in a Python that may lack this package.

SCRIPT FOLDER RANK: FOLDER has job.json, inputs.npy and targets.npy (see `measure`); rank N writes rank-N.json there.
"""
