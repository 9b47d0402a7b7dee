"""The commands: `python -m launch.NAME --flagfile=...`. Flags, progress and exit codes live here, and nothing else."""
