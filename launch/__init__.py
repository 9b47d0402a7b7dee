"""Commands, `eo-keras NAME --flagfile=...` or `python -m launch.NAME`: flags, progress and exit codes."""

import os
import sys

# So reads the command line while `python -m launch.NAME` looks for its module, or the script `eo-keras` imports this
# package: before anything else is imported.
if sys.argv and (sys.argv[0] == "-m" or os.path.basename(sys.argv[0]) == "eo-keras"):
    from launch import interrupts

    interrupts.listen()
