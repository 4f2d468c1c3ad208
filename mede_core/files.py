"""What every run needs: package data, atomic files, locks, threads, progress, provenance. Torch-free at import."""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent
ASSETS = PACKAGE / "assets"  # the one place for package data
TAKEN_OVER_AFTER_S = 300.0  # a lock on a shared disk whose holder has not renewed it for so long
LOG_EVERY_S = 30.0


def repo_root() -> Path | None:
    """The checkout that this package is imported from, else the nearest at or above the working directory."""
    for folder in (PACKAGE.parent, Path.cwd(), *Path.cwd().parents):
        if (folder / "pyproject.toml").is_file() and (folder / "notebooks").is_dir():
            return folder
    return None


# ------------------------------------------------------------------------------------ files and locks
@contextlib.contextmanager
def atomic_path(path):
    """Give a temporary path beside `path` that replaces it in one step when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{os.urandom(4).hex()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # or the rename could reach the disk before the content
        os.replace(temporary, path)
    except Exception as error:
        if "No space left on device" in f"{error} {error.__context__}":  # torch and safetensors say it their own way
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path, data: str | bytes) -> Path:
    """Write a whole file in one step: afterwards `path` holds the old content or the new, never a part."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)
    return Path(path)


def sha256_file(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: Path, record: Mapping) -> None:
    """Add a JSON line, under the caller's lock; a last line that a kill has torn is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write((json.dumps(record) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict]:
    """The records of :func:`append_line`; a torn last line, which has no end of line, is none."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]] if path.is_file() else []


def replace_folder(new, old) -> None:
    """Put a finished folder in the place of an old one, which is whole until then."""
    aside = old.with_name(f".replaced-{os.getpid()}-{time.time_ns()}-{old.name}")
    if old.exists():
        os.replace(old, aside)
    os.replace(new, old)
    shutil.rmtree(aside, ignore_errors=True)


class LockedError(RuntimeError):
    """Another process holds the folder."""


@contextlib.contextmanager
def run_lock(folder, *, wait: bool = True):
    """Hold a folder for this process alone, also on a disk that machines share; LockedError where it may not wait."""
    import filelock

    # The marker names host and process and is renewed while the block runs. One whose process is gone is taken over:
    # at once on the same host, from another host after five minutes without renewal.
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.SoftFileLease(folder / ".lock", lease_duration=TAKEN_OVER_AFTER_S, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        owner = lock.owner  # none where it was released in this moment
        holder = f"process {owner.pid} on {owner.hostname}" if owner else "another process"
        if not wait:
            raise LockedError(f"{folder} is in use by {holder}; wait for it or stop it") from None
        say(f"{folder.name}: {holder} is at work on it; waiting for it to finish")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


# ------------------------------------------------------------------------------------ threads and progress
def available_cpus() -> int:
    """How many CPUs this process may use (not how many the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count() -> int:
    """How many threads compute: the environment's MEDE_THREADS, else the smaller of 2 and the CPUs to be had."""
    given = os.environ.get("MEDE_THREADS") or min(2, available_cpus())
    if not str(given).isdigit() or int(given) < 1:
        raise ValueError(f"MEDE_THREADS is {given!r}; allowed: whole numbers from 1")
    return int(given)


def set_threads(n: int | None = None) -> int:
    """Fix torch's threads (default: :func:`thread_count`), since the bits of a sum depend on how it is split."""
    import torch

    torch.set_num_threads(thread_count() if n is None else n)  # refuses what is below 1
    return torch.get_num_threads()


def progress(iterable, desc: str = "", total: int | None = None):
    """The same items, with a bar where somebody watches, or a line at most every 30 s in the log of a batch run."""
    from tqdm import auto, tqdm

    watched = sys.stderr.isatty() or "ipykernel" in sys.modules  # whose stderr is no terminal
    if os.environ.get("MEDE_BATCH") == "1" or not watched:
        return tqdm(iterable, desc, total, leave=False, mininterval=LOG_EVERY_S, delay=LOG_EVERY_S, ascii=True)
    return auto.tqdm(iterable, desc, total, leave=False, dynamic_ncols=True)


def say(line: str) -> None:
    """Log a line; where logging was never set up (in a notebook), write it to stderr."""
    if logger.hasHandlers():
        logger.info(line)
    else:
        sys.stderr.write(line + "\n")


say_once = functools.cache(say)


# ------------------------------------------------------------------------------------ provenance
PACKAGES = (  # whose versions can change a number, a picture or an executed notebook
    "torch", "torchvision", "open_clip_torch", "safetensors", "numpy", "pandas", "matplotlib", "seaborn",
    "av", "decord", "papermill", "nbconvert", "jupyterlab", "ipywidgets", "ipykernel",
)  # fmt: skip


def versions() -> dict[str, str | None]:
    """{"python", "platform" and packages: version, None where it is not installed}, without importing them."""
    here = {"python": platform.python_version(), "platform": platform.platform()}
    return here | {package: version_of(package) for package in PACKAGES}


def version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_state(*paths: str) -> dict[str, str | bool | None]:
    """{"commit": 40 hex digits or None outside a checkout, "dirty": do tracked files (below paths) differ from it}."""
    if shutil.which("git") is None or not (PACKAGE.parent / ".git").exists():
        return {"commit": None, "dirty": None}

    def git(*arguments):
        answer = subprocess.run(["git", *arguments], cwd=PACKAGE.parent, capture_output=True, text=True)
        return answer.stdout.strip() if answer.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no", "--", *paths)
    return {"commit": git("rev-parse", "--verify", "-q", "HEAD"), "dirty": None if status is None else bool(status)}


def made_by(*paths: str, device: str = "cpu") -> dict:
    """What made a result, for its record: commit (+: with changed code), torch, machine with its card, threads."""
    import torch

    state = git_state(*(paths or (PACKAGE.name,)))
    commit = (state["commit"] or "unknown")[:10] + ("+" if state["dirty"] else "")
    machine = f"{platform.machine()}, {available_cpus()} cores"
    machine += "" if device == "cpu" else f", {torch.cuda.get_device_name(device)}"
    return {"commit": commit, "torch": torch.__version__, "machine": machine, "threads": torch.get_num_threads()}
