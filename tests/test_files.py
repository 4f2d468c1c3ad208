"""Files are written whole or not at all, folders are held by one process, threads are fixed, and code has a name."""

import os
import signal
import subprocess
import sys

import pytest

from mede_core import files
from mede_core.files import LockedError, append_line, atomic_path, atomic_write, progress, read_lines, run_lock
from mede_core.names import import_closure, tree_hash

HOLD = """
import sys, time
from mede_core.files import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""
CODE = '''
"""What it is about."""
import os  # a comment


class A(dict):
    """Another."""

    passes: int = 2

    async def f(self, *a, b=(), **c) -> "int":
        """Words."""
        async with self as x, x:
            return [y async for y in self if (z := y)] or f"{self.passes!r:>{b}} {'a' 'b'}{{}}" "c" f"{1:.1f}{2=}{''}"


def g(n, /, *, k=1.0):
    try:
        match n:
            case {"a": [1, *rest]} | A(passes=2) as found if rest:
                del found
            case _:
                lambda: (yield)
    except* ValueError:
        raise
    return n[1:2, ...] if k else not -n**1e3 and b"0" < 0x10 <= 1j
'''


# ------------------------------------------------------------------------------------ files
def test_atomic_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "new" / "a.txt"
    atomic_write(target, "long old content\n")
    assert atomic_write(target, "né\n") == target
    assert target.read_bytes() == "né\n".encode()
    atomic_write(target, b"\x00\xff")
    assert target.read_bytes() == b"\x00\xff"
    assert os.listdir(target.parent) == ["a.txt"]


def test_a_writer_that_fails_or_writes_nothing_leaves_the_old_file_and_no_temporary_one(tmp_path):
    target = atomic_write(tmp_path / "a.svg", "old")
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        assert temporary.suffix == ".svg"
        temporary.write_text("half")
        1 / 0  # noqa: B018
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.svg"]


@pytest.mark.parametrize("torn", ['{"n": 3', '{"n": 3}', "x" * 5000])
def test_a_line_that_a_kill_has_torn_is_no_record_and_is_cut_off_by_the_next(tmp_path, torn):
    path = tmp_path / "deep" / "scores.jsonl"
    append_line(path, {"n": 1})
    append_line(path, {"n": 2, "words": "é"})
    with open(path, "a") as file:
        file.write(torn)
    assert [line["n"] for line in read_lines(path)] == [1, 2]
    append_line(path, {"n": 4})
    assert [line["n"] for line in read_lines(path)] == [1, 2, 4]


# ------------------------------------------------------------------------------------ locks
def test_a_second_holder_is_refused_and_told_of_the_first_whose_lock_ends_with_it_even_by_kill_9(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {holder.pid} on "), run_lock(tmp_path, wait=False):
            pass
        with run_lock(tmp_path / "another", wait=False):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with run_lock(tmp_path, wait=False):
        pass


# ------------------------------------------------------------------------------------ threads and progress
def test_the_thread_count_comes_from_the_environment_and_is_checked(monkeypatch):
    import torch

    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("MEDE_THREADS", "2")
        assert files.set_threads() == 2 == torch.get_num_threads()
        assert files.set_threads(1) == 1 == torch.get_num_threads()
        monkeypatch.delenv("MEDE_THREADS")
        assert files.set_threads() == files.thread_count() == min(2, files.available_cpus())
        for wrong in ("0", "many", "1.5"):
            monkeypatch.setenv("MEDE_THREADS", wrong)
            with pytest.raises(ValueError, match=f"MEDE_THREADS is '{wrong}'"):
                files.set_threads()
    finally:
        torch.set_num_threads(before)


def test_progress_in_a_batch_run_says_a_line_every_thirty_seconds_and_changes_no_item(monkeypatch, capsys):
    monkeypatch.setenv("MEDE_BATCH", "1")
    assert list(progress(range(1000), "training")) == list(range(1000))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(files, "LOG_EVERY_S", 0.0)
    assert list(progress([3, 1, 2], "training")) == [3, 1, 2]
    assert list(progress(iter("ab"), "reading")) == ["a", "b"]
    assert "training:  67%" in capsys.readouterr().err


def test_progress_shows_a_bar_where_somebody_watches(monkeypatch, capsys):
    monkeypatch.delenv("MEDE_BATCH", raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert list(progress(range(3), "training")) == [0, 1, 2]
    assert "training" in capsys.readouterr().err


# ------------------------------------------------------------------------------------ provenance and names
def test_versions_and_the_commit_are_found_without_importing_anything():
    found, state = files.versions(), files.git_state()
    assert found["python"] == ".".join(map(str, sys.version_info[:3])) and found["torch"].startswith("2.")
    assert state["commit"] is None or len(state["commit"]) == 40
    assert not files.git_state("no_such_folder")["dirty"], "no changes where nothing is looked at"


def test_the_hash_of_code_is_the_same_on_every_python_and_ignores_words():
    assert tree_hash(CODE) == "4db0760cea8ca17c"
    for words in ("What it is about", "Another", "Words", "a comment"):
        assert tree_hash(CODE.replace(words, "Reworded")) == tree_hash(CODE)
    assert tree_hash(CODE.replace("  # a comment", "")) == tree_hash(CODE)
    for code, other in (("int = 2", "int = 3"), ("1e3", "1e4"), ("else not", "else"), ("'a' 'b'", "'c'"), ("<=", "<")):
        assert tree_hash(CODE.replace(code, other)) != tree_hash(CODE), code


def test_the_closure_of_imports_follows_every_form_of_import():
    sources = {
        "a": b"from .b import c\nfrom . import d", "b": b"def f():\n    from .room.e import g", "d": b"import os",
        "room.e": b"from ..h import i\nfrom mede_core.j import k\nimport mede_core.l", "h": b"", "j": b"", "l": b"",
        "room.__init__": b"", "left": b"",
    }  # fmt: skip
    assert import_closure(["a"], sources) == ["a", "b", "d", "h", "j", "l", "room.e"]
    assert import_closure(["a"], sources, leave_out=["b"]) == ["a", "d"]
