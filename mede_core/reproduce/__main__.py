"""Entry point of `python -m mede_core.reproduce`."""

import sys

from mede_core.reproduce.cli import main

sys.exit(main())
