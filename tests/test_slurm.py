"""`make reproduce EXECUTOR=slurm` through a real SLURM of one node on the loopback: `make test-slurm`, as root."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_reproduce import GOOD, NOTEBOOKS
from toy_notebooks import Checkout, wait_for

from mede_core.files import repo_root

pytestmark = pytest.mark.slurm

CONF = Path("/etc/slurm/slurm.conf")  # jobs find no other: the plugin clears their SLURM_ environment
CONFIG = """ClusterName=toy
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=20000
PartitionName=all Nodes={host} Default=YES State=UP
"""
PROFILE = """default-resources:
  slurm_partition: "'all'"
slurm-no-account: true
slurm-status-command: squeue
slurm-init-seconds-before-status-checks: 3
seconds-between-status-checks: 3
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A SLURM of this machine alone; its daemons are ended by their pid files."""
    if os.geteuid() or not shutil.which("slurmd") or CONF.exists():
        pytest.skip("needs root and a SLURM that is not set up for anything else: make test-slurm")
    for name in ("state", "spool"):
        (tmp_path / name).mkdir()
    CONF.write_text(CONFIG.format(host=socket.gethostname().split(".")[0], folder=tmp_path))
    munge = Path("/run/munge")
    munge.mkdir(exist_ok=True)
    shutil.chown(munge, "munge", "munge")
    started = bool(subprocess.run(["pgrep", "-x", "munged"], capture_output=True).returncode)
    if started:
        subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)
    subprocess.run(["slurmctld", "-i"], check=True)
    subprocess.run(["slurmd"], check=True)
    try:
        wait_for(lambda: "idle" in subprocess.run(["sinfo"], capture_output=True, text=True).stdout, seconds=60)
        (tmp_path / "profile").mkdir()
        (tmp_path / "profile" / "config.yaml").write_text(PROFILE)
        monkeypatch.setenv("SNAKEMAKE_PROFILE", str(tmp_path / "profile"))
        yield
    finally:
        for file in (tmp_path / "slurmd.pid", tmp_path / "slurmctld.pid", *([munge / "munged.pid"] if started else [])):
            if file.exists():
                os.kill(int(file.read_text()), signal.SIGTERM)
        CONF.unlink()


def test_a_run_goes_through_slurm_and_a_second_one_starts_nothing(cluster, tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    checkout = Checkout(folder, NOTEBOOKS, GOOD)
    code, said = checkout.reproduce("--executor", "slurm")
    assert code == 0, said + (checkout.out / "logs" / "snakemake.log").read_text()[-3000:]
    assert "submitted with SLURM jobid" in (checkout.out / "logs" / "snakemake.log").read_text()
    assert {step["status"] for step in checkout.manifest()["steps"].values()} == {"done"}
    assert (checkout.out / "tables" / "make.html").read_text() == "<td>make hi</td>"
    code, said = checkout.reproduce("--executor", "slurm")
    assert code == 0 and "started" not in said


def test_a_dozen_trainings_go_through_slurm_one_and_two_at_a_time(cluster, tmp_path):
    weights, seconds = {}, {}
    for jobs in (1, 2):
        folder, started = tmp_path / f"{jobs} at a time", time.monotonic()
        words = f"reproduce --profile=smoke --only=train_* --executor=slurm --jobs={jobs}".split()
        words += [f"--runs={folder / 'runs'}", f"--reports={folder}"]
        command = [sys.executable, "-m", "mede_core", *words]
        done = subprocess.run(command, cwd=repo_root(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        seconds[jobs] = time.monotonic() - started
        weights[jobs] = {file.parent.name: file.read_bytes() for file in folder.glob("runs/*/gwa.safetensors")}
        print(f"\n{len(weights[jobs])} trainings and their notebooks, {jobs} at a time: {seconds[jobs]:.0f} s")
    assert len(weights[1]) >= 12 and weights[1] == weights[2]
    assert seconds[2] < seconds[1]
