"""A scaling study: a folder with a plan (study.json), and a measurement and a log for every job."""
