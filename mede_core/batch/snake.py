"""Snakemake's command line in a process that ends with the one that started it."""

import os
import sys

from .job import end_with_parent

if __name__ == "__main__":
    end_with_parent(os.getppid())
    from snakemake.cli import main

    main(sys.argv[1:])
