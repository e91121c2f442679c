"""A scaling study is a folder: the plan (study.json), and a measurement and a log for every job."""
