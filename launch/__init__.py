"""The commands: `python -m launch.NAME --flagfile=...`. Flags, progress and exit codes live here, and nothing else."""

import sys

# So reads the command line while `python -m launch.NAME` looks for its module, which is before anything is imported.
if sys.argv[:1] == ["-m"]:
    from launch import interrupts

    interrupts.listen()
