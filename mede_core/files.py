"""What every run needs: atomic files, a folder lock, seeds, a fixed thread count, progress, folders.

Nothing here loads torch at import; `seed_everything` and `set_threads` do when they are called.
"""

import contextlib
import hashlib
import logging
import os
import random
import re
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"  # the one place for package data
LOCK_NAME = ".lock"
_TEMP = re.compile(r"^\.tmp-(?P<pid>\d+)-[0-9a-f]{8}-")
_LOG_EVERY_S = 30.0
_held_locks: set[int] = set()  # file descriptors of the locks this process holds


def repo_root() -> Path:
    """Return the repository's root folder.

    Returns:
        The folder that holds pyproject.toml: above the package in a checkout or an editable install,
        otherwise the nearest one above the working directory that also holds `notebooks/`.

    Raises:
        FileNotFoundError: if there is none.
    """
    package_parent = Path(__file__).resolve().parents[1]
    for folder in (package_parent, Path.cwd(), *Path.cwd().parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise FileNotFoundError(f"no folder with pyproject.toml and notebooks/ at or above {Path.cwd()}")


@contextlib.contextmanager
def atomic_path(path):
    """Give a temporary path beside `path` that replaces it when the block ends without an error.

    Args:
        path: the final path; missing parent folders are made. The temporary name keeps its suffix.

    Returns:
        A context manager yielding the temporary `Path`. A reader sees the old file or the whole new one,
        never a part. If the block raises, the temporary file is removed and `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{os.urandom(4).hex()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # or the rename could reach the disk before the content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path, data: str | bytes) -> Path:
    """Write a whole file in one step: afterwards `path` holds the old content or the new, never a part.

    Args:
        path: where to write; missing parent folders are made.
        data: text (written as UTF-8 with line ends as they are) or bytes.

    Returns:
        The path written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    return Path(path)


def remove_stale_temps(folder) -> int:
    """Remove the temporary files of `atomic_path` that killed processes left under a folder.

    Returns:
        How many were removed. Files of processes that still run are left alone.
    """
    removed = 0
    for path in Path(folder).rglob(".tmp-*"):
        match = _TEMP.match(path.name)
        if match and path.is_file() and not _alive(int(match["pid"])):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sha256_file(path) -> str:
    """Return the SHA-256 of a file's content as 64 hex characters."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class LockedError(RuntimeError):
    """Another run holds the folder."""


@contextlib.contextmanager
def run_lock(folder):
    """Hold a folder for this process alone; the lock ends with the block or the process.

    Args:
        folder: the run or report folder; made if missing. The file `.lock` stays behind and means nothing.

    Raises:
        LockedError: if another holder (also one in this process) has the folder; the message names its pid.
    """
    import fcntl  # POSIX only; imported here so that the other helpers work elsewhere

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "pid unknown"
            raise LockedError(f"{folder} is in use by another run ({holder}); wait for it or stop it") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        _forget_locks_in_forks()
        _held_locks.add(descriptor)
        yield
    finally:
        _held_locks.discard(descriptor)
        os.close(descriptor)


def _forget_locks_in_forks() -> None:
    """Close held locks in forked children: a loader's worker that outlives its parent must not keep them."""
    if not getattr(_forget_locks_in_forks, "registered", False):
        os.register_at_fork(after_in_child=_close_inherited_locks)
        _forget_locks_in_forks.registered = True


def _close_inherited_locks() -> None:
    while _held_locks:
        os.close(_held_locks.pop())


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's (CPU and GPU) global random generators.

    Args:
        seed: 0 .. 2**32 - 1.

    Raises:
        ValueError: if the seed is out of range.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed!r}: expected an integer in 0 .. 2**32 - 1")
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (third parties draw from the global generator)
    torch.manual_seed(seed)


def available_cpus() -> int:
    """Return how many CPUs this process may use (not how many the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(n: int | None = None) -> int:
    """Fix torch's thread count: the bits of a sum depend on how it is split.

    Args:
        n: threads; default: the environment's MEDE_THREADS, else the smaller of 2 and the CPUs to be had.

    Returns:
        The count set.

    Raises:
        ValueError: if the count is not an integer >= 1.
    """
    name = "n"
    if n is None:
        name, n = "MEDE_THREADS", os.environ.get("MEDE_THREADS") or min(2, available_cpus())
    try:
        count = int(n)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise ValueError(f"{name}={n!r}: expected an integer >= 1")
    import torch

    torch.set_num_threads(count)
    return count


def progress(iterable, desc: str = "", total: int | None = None):
    """Show how far a loop is: a bar where somebody watches, one log line per 30 s in a batch run.

    Args:
        iterable: what to loop over.
        desc: what is being done, in a few words.
        total: number of items; default: `len(iterable)` where it has one.

    Returns:
        An iterable over the same items.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    if os.environ.get("MEDE_BATCH") == "1" or not (_in_kernel() or sys.stderr.isatty()):
        return _logged(iterable, desc, total)
    from tqdm.auto import tqdm

    return tqdm(iterable, desc=desc, total=total, leave=False, dynamic_ncols=True)


def _in_kernel() -> bool:
    """Whether a Jupyter kernel runs this code (its stderr is no tty, yet somebody watches)."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell, "kernel", None) is not None


def _logged(iterable, desc: str, total: int | None):
    start = last = time.monotonic()
    for done, item in enumerate(iterable):
        now = time.monotonic()
        if now - last >= _LOG_EVERY_S:
            last = now
            line = f"{desc}: {done}" + (f"/{total} ({100 * done / total:.0f} %)" if total else "")
            line += f", {done / (now - start):.2f} per second"
            if total and done:
                line += f", about {(total - done) * (now - start) / done:.0f} s left"
            _say(line)
        yield item


def _say(line: str) -> None:
    """Log a line; where logging was never set up (a notebook in a batch run), write it to stderr."""
    if logger.hasHandlers():
        logger.info(line)
    else:
        sys.stderr.write(line + "\n")


@dataclass(frozen=True)
class Workspace:
    """Where a notebook reads and writes: reports under `out_dir`, training runs under `runs_dir`.

    Relative paths stay relative to the working directory (for a notebook: `notebooks/`), so that no path of
    this machine gets into an output. Each folder is made when it is first asked for.
    """

    out_dir: str | Path
    runs_dir: str | Path

    @property
    def out(self) -> Path:
        return _made(Path(self.out_dir))

    @property
    def runs(self) -> Path:
        return _made(Path(self.runs_dir))

    @property
    def tables(self) -> Path:
        return _made(Path(self.out_dir) / "tables")

    @property
    def figures(self) -> Path:
        return _made(Path(self.out_dir) / "figures")

    @property
    def results(self) -> Path:
        return _made(Path(self.out_dir) / "results")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
