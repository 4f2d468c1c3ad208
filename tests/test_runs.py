"""Files are written whole or not at all, folders are held by one run, seeds and thread counts are fixed."""

import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from mede_core import files as runs
from mede_core import provenance
from mede_core.files import (
    Workspace,
    atomic_path,
    atomic_write,
    progress,
    remove_stale_temps,
    run_lock,
    sha256_file,
)

HOLD = """
import sys, time
from mede_core.files import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_atomic_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "new" / "a.txt"
    atomic_write(target, "long old content\n")
    assert atomic_write(target, "né\n") == target
    assert target.read_bytes() == "né\n".encode()
    atomic_write(target, b"\x00\xff")
    assert target.read_bytes() == b"\x00\xff"
    assert files_in(target.parent) == ["a.txt"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_temporary_one(tmp_path):
    target = atomic_write(tmp_path / "a.svg", "old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        assert temporary.suffix == ".svg"
        temporary.write_text("half")
        1 / 0  # noqa: B018
    assert target.read_text() == "old"
    assert files_in(tmp_path) == ["a.svg"]


def test_a_writer_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    target = atomic_write(tmp_path / "a.txt", "old")
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text() == "old"


def test_stale_temporary_files_are_removed_but_not_those_of_living_processes(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = tmp_path / f".tmp-{os.getpid()}-0123abcd-a.txt"
    theirs = tmp_path / "deep" / f".tmp-{dead.pid}-0123abcd-a.txt"
    other = tmp_path / ".tmp-notes"
    theirs.parent.mkdir()
    for path in (mine, theirs, other):
        path.write_text("x")
    assert remove_stale_temps(tmp_path) == 1
    assert mine.exists() and other.exists() and not theirs.exists()


def test_sha256_of_a_file_is_that_of_its_content(tmp_path):
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, example B.1
    assert sha256_file(atomic_write(tmp_path / "a", "abc")) == expected


def test_a_second_holder_of_a_folder_is_refused_and_told_the_pid(tmp_path):
    with run_lock(tmp_path):
        with pytest.raises(runs.LockedError, match=f"pid {os.getpid()} "), run_lock(tmp_path):
            pass
        with run_lock(tmp_path / "another"):
            pass
    with run_lock(tmp_path):
        pass


def test_a_lock_ends_with_its_holder_even_by_kill_9(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(runs.LockedError, match=f"pid {holder.pid} "), run_lock(tmp_path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with run_lock(tmp_path):
        pass


def test_a_forked_worker_does_not_keep_its_parents_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    begun = context.Event()

    def work():
        begun.set()
        time.sleep(60)

    with run_lock(tmp_path):
        worker = context.Process(target=work, daemon=True)
        worker.start()
        assert begun.wait(30)
    try:
        with run_lock(tmp_path):
            pass
        assert worker.is_alive()
    finally:
        worker.kill()
        worker.join()


def test_equal_seeds_give_equal_numbers_from_all_three_generators():
    import torch

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    runs.seed_everything(5)
    first = draw()
    runs.seed_everything(5)
    assert draw() == first
    runs.seed_everything(6)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.0, "1", True, None])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match="seed="):
        runs.seed_everything(seed)


def test_the_thread_count_comes_from_the_environment_and_is_checked(monkeypatch):
    import torch

    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("MEDE_THREADS", "2")
        assert runs.set_threads() == 2 == torch.get_num_threads()
        assert runs.set_threads(1) == 1 == torch.get_num_threads()
        monkeypatch.delenv("MEDE_THREADS")
        assert runs.set_threads() == min(2, runs.available_cpus())
        for wrong in ("0", "many", "1.5"):
            monkeypatch.setenv("MEDE_THREADS", wrong)
            with pytest.raises(ValueError, match=f"MEDE_THREADS='{wrong}'"):
                runs.set_threads()
    finally:
        torch.set_num_threads(before)


def test_progress_in_a_batch_run_logs_lines_and_changes_no_item(monkeypatch, caplog):
    monkeypatch.setenv("MEDE_BATCH", "1")
    monkeypatch.setattr(runs, "_LOG_EVERY_S", 0.0)
    with caplog.at_level(logging.INFO, logger="mede_core.files"):
        assert list(progress([3, 1, 2], "training")) == [3, 1, 2]
        assert list(progress(iter("ab"), "reading")) == ["a", "b"]
    assert any(m.startswith("training: 2/3 (67 %)") and "left" in m for m in caplog.messages)
    assert any(m.startswith("reading: 1,") for m in caplog.messages)


def test_progress_in_a_batch_run_is_silent_for_thirty_seconds(monkeypatch, caplog, capsys):
    monkeypatch.setenv("MEDE_BATCH", "1")
    with caplog.at_level(logging.INFO):
        list(progress(range(1000), "training"))
    assert not caplog.messages
    assert capsys.readouterr() == ("", "")


def test_progress_shows_a_bar_where_somebody_watches(monkeypatch, capsys):
    monkeypatch.delenv("MEDE_BATCH", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress(range(3), "training")) == [0, 1, 2]
    assert "training" in capsys.readouterr().err


def test_versions_are_found_without_importing_the_packages():
    found = provenance.versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["torch"].startswith("2.")
    assert set(provenance.PACKAGES) < set(found)


def test_a_workspace_makes_its_folders_on_demand_and_keeps_relative_paths(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    workspace = Workspace("../reports/lab", "../runs/lab")
    assert files_in(tmp_path) == ["notebooks"]
    assert workspace.tables.is_dir() and workspace.figures.is_dir() and workspace.results.is_dir()
    assert workspace.runs.is_dir() and workspace.out.is_dir()
    assert str(workspace.tables) == os.path.join("..", "reports", "lab", "tables")
    assert files_in(tmp_path / "reports" / "lab") == ["figures", "results", "tables"]


def test_the_repository_root_is_found_from_anywhere(tmp_path, monkeypatch):
    here = runs.repo_root()
    assert (here / "mede_core").is_dir() and (here / "pyproject.toml").is_file()
    monkeypatch.chdir(tmp_path)
    assert runs.repo_root() == here


def test_git_state_names_the_commit_or_says_that_there_is_none():
    state = provenance.git_state()
    assert set(state) == {"commit", "dirty"}
    assert state["commit"] is None or len(state["commit"]) == 40
    nothing = provenance.git_state("no_such_folder")
    assert nothing["commit"] == state["commit"] and not nothing["dirty"], "no changes where nothing is looked at"
