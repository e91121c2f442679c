"""What `--help` prints, and completion in the shell: both from the dataclasses of options."""
