"""A checkout in small: a copy of the package, the Snakefile's rules over tiny notebooks, and `mede reproduce` in it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
from nbformat import v4

from mede_core.files import PACKAGE, repo_root

PARAMETERS = """profile = "cpu"
settings = {}
out_dir = ""
runs_dir = \"\""""


def notebook(*code: str, prose: str = "# A toy", parameters: str = PARAMETERS, tags: dict | None = None) -> dict:
    """A notebook: prose, a parameters cell, then the code cells; `tags` maps a code cell's index to a tag."""
    cells = [v4.new_markdown_cell(prose)]
    for i, source in enumerate((parameters, *code), start=-1):
        tag = "parameters" if i < 0 else (tags or {}).get(i)
        cells.append(v4.new_code_cell(source, metadata={"tags": [tag]} if tag else {}))
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


class Checkout:
    """A folder with notebooks/ and mede_core/ in which `mede reproduce` runs as a user's would."""

    def __init__(self, folder: Path, notebooks: dict[str, dict], jobs: str, settings: str = "jobs=2"):
        self.folder, self.home = folder, self.notebooks(folder, notebooks, jobs, settings)
        self.out, self.runs = folder / "reports" / "smoke", folder / "runs"
        shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "shipped"))
        (folder / "pyproject.toml").touch()

    @staticmethod
    def notebooks(folder: Path, notebooks: dict[str, dict], jobs: str, settings: str = "jobs=2") -> Path:
        """Write notebooks and the Snakefile with these jobs to `folder/notebooks/`, and return that folder."""
        home = folder / "notebooks"
        home.mkdir()
        for name, content in notebooks.items():
            (home / f"{name}.ipynb").write_text(json.dumps(content))
        head = f"""from mede_core.batch.plan import Job, Settings, load_plan

SETTINGS = {{'smoke': Settings({settings})}}


def notebooks(profile, data):
    yield from [{jobs}]


"""
        rules = "".join((repo_root() / "notebooks" / "Snakefile").read_text().partition("# ---- rules")[1:])
        (home / "Snakefile").write_text(head + rules)
        return home

    def command(self, *arguments: str) -> dict:
        """What `subprocess` takes."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder)}
        environment.pop("MEDE_RUNS", None)
        line = [sys.executable, "-m", "mede_core", "reproduce", "--profile", "smoke", *arguments]
        return {"args": line, "cwd": self.folder, "env": environment}

    def reproduce(self, *arguments: str) -> tuple[int, str]:
        """(exit code, what was said)."""
        answer = subprocess.run(**self.command(*arguments), capture_output=True, text=True, timeout=1800)
        return answer.returncode, answer.stdout + answer.stderr

    def would_run(self, *arguments: str) -> set[str]:
        """The jobs that a run would start: ids of notebooks, and words of trainings and scorings."""
        code, said = self.reproduce("--dry-run", *arguments)
        assert code == 0 and " would run" in said, said
        return {line.strip().partition(": ")[0] for line in said.splitlines() if line.startswith("  ")}

    def start(self, *arguments: str) -> subprocess.Popen:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(**self.command(*arguments), **quiet, start_new_session=True)

    def manifest(self) -> dict:
        return json.loads((self.out / "manifest.json").read_text())


def processes_in(folder: Path) -> list[int]:
    """The processes that have something to do with a folder."""
    running = {one.pid: one.info for one in psutil.process_iter(["cmdline", "cwd"]) if one.pid != os.getpid()}
    return [pid for pid, of in running.items() if str(folder) in " ".join([*(of["cmdline"] or ()), of["cwd"] or ""])]


def wait_for(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
