"""Shared by all tests: one thread per process, no display, reproducible property tests."""

import os

# Before anything imports torch or numpy: the tests run in two processes, and bits depend on the thread count.
for _library in ("OMP", "MKL", "OPENBLAS"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"
os.environ["MEDE_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # as the Makefile does

import hypothesis

hypothesis.settings.register_profile("ci", deadline=None, max_examples=40, derandomize=True, database=None)
hypothesis.settings.load_profile("ci")
