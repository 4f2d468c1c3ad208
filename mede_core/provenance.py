"""What a result was made with: package versions, GPUs, the state of the checkout. Torch-free."""

import logging
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

logger = logging.getLogger(__name__)

PACKAGES = (  # the packages whose versions can change a number, a picture or an executed notebook
    "torch", "torchvision", "open_clip_torch", "safetensors", "numpy", "pandas", "matplotlib", "seaborn",
    "av", "decord", "papermill", "nbconvert", "jupyterlab", "ipywidgets", "ipykernel",
)  # fmt: skip


def versions() -> dict[str, str | None]:
    """Return the versions that can matter to a result, without importing the packages.

    Returns:
        {"python": ..., "platform": ..., package: version or None where it is not installed}.
    """
    found: dict[str, str | None] = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def gpu_names() -> list[str]:
    """Return "name, driver version" of each NVIDIA GPU, or an empty list; torch is not needed for it."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        logger.warning("nvidia-smi did not answer within 20 s")
        return []
    return answer.stdout.strip().splitlines() if answer.returncode == 0 else []


def git_state(*paths: str) -> dict[str, str | bool | None]:
    """Return the checkout's state.

    Args:
        paths: git pathspecs that ``dirty`` looks at; default: all.

    Returns:
        {"commit": 40 hex characters or None outside a checkout, "dirty": do tracked files differ from it}.
    """
    root = Path(__file__).resolve().parents[1]
    if shutil.which("git") is None or not (root / ".git").exists():
        return {"commit": None, "dirty": None}

    def git(*arguments):
        answer = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return answer.stdout.strip() if answer.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no", "--", *paths)
    commit = git("rev-parse", "--verify", "-q", "HEAD")
    return {"commit": commit, "dirty": None if status is None else bool(status)}
