"""Shared by all tests: one thread per process, no display, reproducible property tests."""

import os
import shutil
from pathlib import Path

# Before anything imports torch or numpy: the tests run in two processes, and bits depend on the thread count.
for _library in ("OMP", "MKL", "OPENBLAS"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"
os.environ["MEDE_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"  # weights come from the cache alone, also in processes that tests start
os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # as the Makefile does

import hypothesis
import pytest

hypothesis.settings.register_profile("ci", deadline=None, max_examples=40, derandomize=True, database=None)
hypothesis.settings.load_profile("ci")

# The longest files first, so that no worker waits for another; each worker takes two files at the start, so the third
# is a short one.
FIRST = ("test_notebooks_in_lab", "test_notebooks", "test_contents", "test_reproduce", "test_paper_path")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: [*FIRST, (stem := Path(item.fspath).stem)].index(stem))


@pytest.fixture
def server():
    """A hub of weights on the loopback, which gives the files that a test puts into it."""
    from hub import Hub

    with Hub() as served:
        yield served


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The video that all links of a stand-in lead to."""
    from clips import make_clip  # here, since most tests need no video
    from layouts import FRAMES

    return make_clip(tmp_path_factory.mktemp("clip") / "tiny.mp4", FRAMES, sizes=((32, 32),))


@pytest.fixture
def clip(tiny, tmp_path):
    """A copy for each test: a file system allows 65,000 links to one file."""
    yield shutil.copy(tiny, tmp_path / "tiny.clip")
    shutil.rmtree(tmp_path)  # tens of thousands of links
