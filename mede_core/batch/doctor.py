"""`make doctor`: is this environment fit to run the notebooks, and which CLIP weights and data are here?
What is merely absent (a GPU, pretrained weights, real data) is reported and is no fault."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..files import available_cpus, repo_root, version_of, versions
from ..weights import SMALL_CLIP, cached_weights, weights_hash

logger = logging.getLogger(__name__)

# Looked for in the local caches: what the published tables and comparable reproductions start from.
PRETRAINED = (
    ("ViT-B-16-quickgelu", "openai"),
    ("ViT-B-32-quickgelu", "openai"),
    ("ViT-L-14-quickgelu", "openai"),
    ("ViT-B-16", "laion2b_s34b_b88k"),
    ("ViT-B-32", "laion2b_s34b_b79k"),
)


@dataclass(frozen=True)
class Finding:
    topic: str
    text: str
    fault: bool = False


def check_versions() -> list[Finding]:
    return [  # decord has no wheels for some platforms; PyAV decodes there
        Finding(name, version or "not installed", fault=version is None and name != "decord")
        for name, version in versions().items()
    ]


def check_kernel() -> Finding:
    """Which kernel the notebooks get; it must be the one of this environment."""
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return Finding("kernel", "no kernel named python3: install ipykernel", fault=True)
    executable = spec.argv[0]
    # jupyter_client puts its own interpreter in place of a bare "python"
    if executable in ("python", "python3") or Path(executable).absolute() == Path(sys.executable).absolute():
        return Finding("kernel", f"python3 runs {sys.executable}")
    return Finding("kernel", f"python3 runs {executable}, not {sys.executable}: "
                   "set JUPYTER_PREFER_ENV_PATH=1 or use `make lab`", fault=True)  # fmt: skip


def check_widgets(installed: dict[str, str | None] | None = None) -> Finding:
    """Whether ipywidgets and its JupyterLab half fit each other: if not, widgets show only "model not found"."""
    from packaging.requirements import Requirement

    installed = installed or {name: version_of(name) for name in ("ipywidgets", "jupyterlab_widgets")}
    text = ", ".join(f"{name} {version or 'not installed'}" for name, version in installed.items())
    if None in installed.values():
        return Finding("widgets", text, fault=True)
    needs = [Requirement(line) for line in metadata.requires("ipywidgets") or ()]
    need = next(requirement for requirement in needs if requirement.name.replace("-", "_") == "jupyterlab_widgets")
    if not need.specifier.contains(installed["jupyterlab_widgets"]):
        return Finding("widgets", f"{text}: ipywidgets needs jupyterlab_widgets {need.specifier}", fault=True)
    extension = Path(sys.prefix, "share", "jupyter", "labextensions", "@jupyter-widgets", "jupyterlab-manager")
    if not extension.is_dir():
        return Finding("widgets", f"{text}, but JupyterLab's extension is not in this environment", fault=True)
    return Finding("widgets", f"{text}: they fit")


def gpu_names() -> list[str]:
    """ "name, driver version" of each NVIDIA GPU, without torch."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        logger.warning("nvidia-smi did not answer within 20 s")
        return []
    return answer.stdout.strip().splitlines() if answer.returncode == 0 else []


def check_device() -> Iterator[Finding]:
    import torch

    threads = os.environ.get("MEDE_THREADS") or min(2, available_cpus())
    yield Finding("CPU", f"{available_cpus()} usable, {threads} threads per run (MEDE_THREADS changes it)")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        on = "fused AdamW, TF32; on real videos the encoder is compiled, and the paper profile runs in bfloat16"
        yield Finding("device", f"cuda: {', '.join(names)}; {on}")
    elif torch.backends.mps.is_available():
        yield Finding("device", "mps")
    else:
        unused = f"; torch cannot use {'; '.join(gpu_names())}" if gpu_names() else ""
        yield Finding("device", f"cpu (no GPU is needed for the profiles smoke and cpu){unused}")


def check_weights() -> Iterator[Finding]:
    file = SMALL_CLIP / "open_clip_model.safetensors"
    if file.is_file():
        yield Finding("mede-small", f"{weights_hash('mede-small', 'shipped')}, {file.stat().st_size / 1e6:.1f} MB")
    else:
        yield Finding("mede-small", "the shipped weights are missing", fault=True)
    for model, tag in PRETRAINED:
        yield Finding(model, f"{tag}: {cached_weights(model, tag) or 'not on this machine; fetched at first use'}")


def check_data() -> Iterator[Finding]:
    yield Finding("data", "synthetic world: always there, rendered on demand")
    folder = repo_root() / "data"
    lists = sorted(folder.glob("**/*.csv")) if folder.is_dir() else []
    for file in lists[:20]:
        with open(file, encoding="utf-8", errors="replace") as stream:
            yield Finding("data", f"{file.relative_to(folder.parent)}: {sum(1 for _ in stream)} lines")
    if not lists:
        yield Finding("data", "no video lists (path,label CSV files) in data/; any path can be passed")


def examine() -> list[Finding]:
    """Say whether this environment can run the notebooks, and which CLIP weights, devices and data are here; the exit
    code is 1 where something must be mended."""
    return [*check_versions(), check_kernel(), check_widgets(), *check_device(), *check_weights(), *check_data()]
