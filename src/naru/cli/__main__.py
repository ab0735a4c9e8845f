"""`python …/naru/cli/__main__.py`: how ./naru starts the CLI, without site-packages (`-S` saves 5 ms)."""

import os
import sys
from os.path import dirname

if __package__ in (None, ""):
    sys.path.insert(0, dirname(dirname(dirname(__file__))))

from naru.cli.main import main

code = main(sys.argv[1:])
try:
    sys.stdout.flush()
    sys.stderr.flush()
except BrokenPipeError:
    pass
os._exit(code)  # nothing is left to be done: taking the interpreter down by the book costs 4 ms
