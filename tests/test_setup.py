"""The set-up: one list of requirements everywhere, nothing private, light imports, honest make."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import mede_core
from mede_core.__main__ import main
from mede_core.batch import doctor
from mede_core.files import repo_root

ROOT = repo_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked():
    """Return {package: [versions]} of requirements.lock."""
    found = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if match := re.match(r"([\w.-]+)==([^\s;]+)", line):
            found.setdefault(canonical(match[1]), []).append(match[2])
    return found


def installed():
    """What `make` installs: each requirement once."""
    extras = re.search(r"^EXTRAS *= (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    lists = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][name] for name in extras)]
    return list(dict.fromkeys(line for lines in lists for line in lines))


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_environment_yml_mirrors_pyproject():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    assert f"python {PROJECT['requires-python']}" in entries
    assert pip == [*installed(), "-e ."]


def test_the_lock_holds_a_fitting_version_of_each_requirement():
    versions = locked()
    for line in installed():
        requirement = Requirement(line)
        found = versions.get(canonical(requirement.name), [])
        assert found, f"{requirement.name} is not locked: make lock"
        assert all(requirement.specifier.contains(version) for version in found), f"{line}, locked: {found}"


def test_the_lock_names_no_host_and_no_path():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|--[a-z-]*(index|find-links)|(^|\s)/\w+|\.whl", text)


def committed_files():
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_file_of_the_repository_names_a_package_index_or_this_machine():
    hosts = ("pythonhosted.org", "pypi.org/simple", "index-url", "--find-links")
    private = [*hosts, f"{ROOT}/", f"{Path.home()}/"]
    for path in committed_files():
        if path.suffix not in {".safetensors", ".gz", ".png", ".mp4", ".webm"} and path.name != "test_setup.py":
            text = path.read_text(encoding="utf-8")
            assert not [word for word in private if word in text], path.relative_to(ROOT)


def test_no_committed_file_is_large():
    # Of the study all files together: test_study.py
    limits = {"assets": 8_000_000, "study": 1_000_000, "figures": 100_000}
    for path in committed_files():
        limit = next((limits[part] for part in path.parts if part in limits), 250_000)
        assert path.stat().st_size <= limit, f"{path.relative_to(ROOT)} has {path.stat().st_size} bytes"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        mede_core.fitt  # noqa: B018


# --- make -------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path):
    """A folder with only what `make` itself needs."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    return tmp_path


def make(folder, *arguments):
    quiet = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, env=quiet)


def test_make_alone_lists_the_targets(checkout):
    text = make(checkout).stdout
    for target in ("reproduce", "test", "test-ui", "lab", "figures", "gallery", "lint", "bench", "doctor", "clean"):
        assert re.search(rf"^  make {target} +\S", text, re.MULTILINE), target


@pytest.mark.parametrize("target", ["test", "reproduce"])
def test_an_old_python_is_refused_before_anything_is_made(checkout, target):
    old = checkout / "python3"
    old.write_text('#!/bin/sh\nif [ "$1" = -V ]; then echo "Python 3.9.1"; else exit 1; fi\n')
    old.chmod(0o755)
    answer = make(checkout, target, f"PYTHON={old}")
    assert answer.returncode != 0
    assert "Python 3.11 or newer is needed" in answer.stderr and "Python 3.9.1" in answer.stderr
    assert not [*(checkout / ".venv").iterdir()]


def test_test_and_reproduce_first_make_the_environment_once(checkout):
    for target in ("test", "reproduce"):
        assert "-m venv .venv" in make(checkout, "-n", target).stdout
    (checkout / ".venv" / ".stamp").touch()
    for target in ("test", "reproduce"):
        assert "venv .venv" not in make(checkout, "-n", target).stdout


def test_options_of_make_reproduce_reach_the_runner(checkout):
    (checkout / ".venv" / ".stamp").touch()
    line = make(checkout, "-n", "reproduce", "PROFILE=smoke", "ONLY=22_*", "FORCE=1", "JOBS=3").stdout
    assert "-m mede_core reproduce --profile smoke --only '22_*' --force 1 --jobs 3" in line
    assert "--profile cpu" in make(checkout, "-n", "reproduce").stdout
    assert "--force" not in make(checkout, "-n", "reproduce", "FORCE=0").stdout


def test_make_clean_removes_reports_and_caches_but_never_runs(checkout):
    kept = [checkout / name for name in ("runs/cpu/a.safetensors", "runs/__pycache__/x", ".venv/__pycache__/x")]
    gone = [checkout / name for name in ("reports/cpu/x", "a/__pycache__/x", ".pytest_cache/x")]
    for path in kept + gone:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert make(checkout, "clean").returncode == 0
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)


# --- doctor -----------------------------------------------------------------------------------------------


def test_this_environment_is_fit_for_the_notebooks():
    faults = [f for f in [*doctor.check_versions(), doctor.check_kernel(), doctor.check_widgets()] if f.fault]
    assert not faults


@pytest.mark.parametrize(("core", "lab"), [("8.1.9", "1.1.1"), ("8.1.9", None), (None, "3.0.17")])
def test_widgets_that_do_not_fit_are_a_fault(core, lab):
    assert doctor.check_widgets({"ipywidgets": core, "jupyterlab_widgets": lab}).fault


def test_a_kernel_of_another_environment_is_a_fault(tmp_path, monkeypatch):
    spec = tmp_path / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["/opt/other/bin/python", "-m", "ipykernel_launcher"]}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    finding = doctor.check_kernel()
    assert finding.fault and "/opt/other/bin/python" in finding.text


@pytest.mark.parametrize(("fault", "code"), [(False, 0), (True, 1)])
def test_the_doctor_exits_1_where_something_must_be_mended(monkeypatch, capsys, fault, code):
    def examine():
        """Find one thing."""
        return [doctor.Finding("widgets", "text", fault)]

    monkeypatch.setattr(doctor, "examine", examine)
    assert main(["doctor"]) == code
    assert ("!! widgets" in capsys.readouterr().out) == fault
