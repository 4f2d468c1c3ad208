"""`make reproduce` as its users meet it: real toy notebooks, a real training, real processes, real kills."""

import os
import re
import signal

import pytest
from toy_notebooks import PARAMETERS, Checkout, notebook, processes_in, wait_for

from mede_core.__main__ import main
from mede_core.files import read_lines

WRITE = "from pathlib import Path\nfrom mede_core.files import atomic_write\nout = Path(out_dir)\n"
TABLE = f"""{WRITE}for kind in ('html', 'md'):
    atomic_write(out / 'tables' / f'{{name}}.{{kind}}', f'<td>{{name}} {{word}}</td>')"""
NAMED = f'{PARAMETERS}\nname = "none"\nword = "hello"'
ASKING = "from mede_core.batch import asks\nfrom mede_core.workspace import Workspace\nspace = Workspace(runs_dir)\n"
TRAIN = f"{ASKING}{WRITE}run = space.run(asks.train(profile, settings, method)[0].config)\n"
TRAIN += "atomic_write(out / 'tables' / 'run.txt', run.name)"
EVALUATE = f"{ASKING}{WRITE}from mede_core.report.metrics import harmonic_mean\n"
EVALUATE += "found = asks.answers(asks.evaluate(profile, settings, methods, other_clips), space)\n"
EVALUATE += "atomic_write(out / 'tables' / 'scores.txt', ' '.join(f\"{one['value']:.3f}\" for one in found))"
TINY = {"epochs": 2, "train_clips": 64, "test_clips": 36}
METHOD = f'{PARAMETERS}\nname = "x"\nmethod = "open_mede"'
METHODS = f'{PARAMETERS}\nmethods = "frozen"\nother_clips = 400'
NOTEBOOKS = {
    "00_make": notebook(TABLE, parameters=NAMED),
    "10_train": notebook(TRAIN, parameters=METHOD),
    "11_evaluate": notebook(EVALUATE, parameters=METHODS),
    "50_bad": notebook("raise ValueError('no luck')"),
    "51_killed": notebook("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
    "52_asking": notebook(f"{ASKING}space.run(asks.train(profile, {TINY}, 'froster')[0].config)"),
}
GOOD = f"""
    Job("train", "10_train", {{"method": "finetune", "settings": {TINY}}}),
    Job("evaluate", "11_evaluate", {{"methods": "finetune", "other_clips": 48, "settings": {TINY}}}),
    Job("make", "00_make", {{"name": "make", "word": "hi"}}),
"""
BAD = 'Job("bad", "50_bad"), Job("killed", "51_killed"), Job("asking", "52_asking")'
ALL = {"train finetune train_clips=64", "score finetune train_clips=64", "train", "evaluate", "make"}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A checkout after one run of everything that can happen, and how that ended."""
    checkout = Checkout(tmp_path_factory.mktemp("first"), NOTEBOOKS, GOOD + BAD)
    return checkout, *checkout.reproduce()


@pytest.fixture
def steps(first):
    return first[0].manifest()["steps"]


def test_a_failed_notebook_is_exit_code_1_and_the_others_go_on(first, steps):
    assert first[1] == 1, first[2]
    states = {name: entry["status"] for name, entry in steps.items()}
    assert {name for name, state in states.items() if state == "failed"} == {"bad", "killed", "asking"}
    assert {state for name, state in states.items() if name not in ("bad", "killed", "asking")} == {"done"}
    assert first[0].manifest()["exit_code"] == 1 and "3 failed" in first[2]


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ("bad", r"In \[3\]: ValueError: no luck"),
        ("killed", r"the kernel was killed \(memory\?\)"),
        ("asking", r"In \[3\]: NotMadeError: .*froster.*"),  # what no job prepared is an error that names it
    ],
)
def test_a_failure_says_its_reason(first, steps, job, reason):
    assert re.fullmatch(reason, steps[job]["reason"]), steps[job]["reason"]
    assert f"{job}: failed in" in first[2] and not (first[0].out / "executed" / f"{job}.ipynb").exists()


def test_one_job_a_training_and_a_scoring_and_one_line_each(first, steps):
    made = {entry["notebook"] for name, entry in steps.items() if not entry["notebook"].endswith(".ipynb")}
    assert made == {name for name in ALL if " " in name}
    assert all(first[2].count(f"  {name}: started") == first[2].count(f"  {name}: done in") == 1 for name in ALL)


def test_notebooks_get_the_jobs_parameters_and_paths_that_name_no_machine(first, steps):
    out = first[0].out
    assert (out / "tables" / "make.html").read_text() == "<td>make hi</td>"
    assert steps["make"]["provides"] == ["tables/make.html", "tables/make.md"]
    assert steps["make"]["chosen"] == {"name": "make", "word": "hi"}
    for name in ("executed/make.ipynb", "summary.html", "summary.md", "manifest.json", "gallery/notebook_make.html"):
        assert str(first[0].folder) not in (out / name).read_text(), name


def test_the_manifest_says_what_all_was_made_with(first, steps):
    manifest = first[0].manifest()
    assert manifest["versions"]["torch"].startswith("2.") and set(manifest["git"]) == {"commit", "dirty"}
    assert 0 < steps["make"]["seconds"] < 300 and 20 < steps["make"]["peak_memory_mb"] < 4000


def test_nothing_is_left_running_or_half_written(first):
    assert not processes_in(first[0].folder)
    assert not [path for path in first[0].out.rglob("*") if path.name.startswith(".tmp") or "partial" in path.name]


@pytest.fixture
def good(first):
    """A function that makes changes and gives the jobs that would run then; they are undone afterwards."""
    checkout, kept = first[0], {}

    def change(edits: dict) -> set[str]:
        for name, edit in edits.items():
            path = checkout.folder / name
            kept[path] = path.read_bytes()
            path.write_text(edit(path.read_text()))
            os.utime(path, (1e9, 1e9))  # content decides, whatever a file's time says
        return checkout.would_run() - {"bad", "killed", "asking"}

    yield change
    for path, content in kept.items():
        path.write_bytes(content)


def more(text: str) -> str:
    """A module's text with code that changes nothing, and counts."""
    return f"{text}\nMORE = 1\n"


def test_a_touched_file_runs_nothing_and_prose_runs_its_notebook_alone(first, good):
    for path in [*first[0].home.iterdir(), *(first[0].folder / "mede_core").rglob("*.py")]:
        path.touch()
    assert good({"notebooks/00_make.ipynb": lambda text: text.replace("# A toy", "# Other words")}) == {"make"}


def test_a_parameter_runs_its_job_alone_and_another_test_scores_again_and_trains_nothing(good):
    found = good({"notebooks/Snakefile": lambda text: text.replace('"hi"', '"ho"'), "mede_core/scoring.py": more})
    assert found == {"make", "score finetune train_clips=64", "evaluate"}


def test_a_module_runs_the_notebooks_that_import_it_and_another_docstring_trains_nothing(good):
    docstring = {"mede_core/train.py": lambda text: text.replace('"""', '"""Other words. ', 1)}
    assert good({"mede_core/report/metrics.py": more, **docstring}) == {"evaluate"}


def test_other_code_of_training_trains_and_scores_again(good):
    assert good({"mede_core/train.py": more}) == ALL - {"make"}


def test_force_runs_the_chosen_notebooks_alone_and_all_what_they_need_too(first):
    assert first[0].would_run("--only", "evaluate", "--force", "1") == {"evaluate"}
    assert first[0].would_run("--only", "evaluate", "--force", "all") == ALL - {"make", "train"}


def test_an_output_that_is_gone_is_made_again(first):
    gone = [first[0].out / name for name in ("tables/make.md", "executed/evaluate.ipynb")]
    for path in gone:
        path.unlink()
    code, said = first[0].reproduce("--only", "[em]*")
    assert code == 0 and {name for name in ALL if f"  {name}: started" in said} == {"make", "evaluate"}
    assert all(path.is_file() for path in gone)


def test_a_comparable_number_outside_its_tolerance_is_exit_code_3(first):
    path = first[0].out / "tables" / "check.json"
    path.write_text('{"outside_tolerance": true, "comparable": true}')
    try:
        code, said = first[0].reproduce("--only", "make")
    finally:
        path.unlink()
    assert code == 3 and "outside tolerance: check" in said


def test_the_report_can_be_rebuilt_alone(first):
    summary, before = first[0].out / "summary.html", first[0].manifest()
    summary.unlink()
    assert first[0].reproduce("--report-only")[0] == before["exit_code"]
    assert "make hi" in summary.read_text() and first[0].manifest() == before


# ------------------------------------------------------------------------------------ refused before anything starts
@pytest.mark.parametrize(
    ("jobs", "arguments", "message"),
    [
        ('Job("make", "00_make", {"wrod": "hi"})', [], "job make: 00_make has no parameter wrod; it has profile"),
        ('Job("train", "10_train", {"settings": {"epochs": 0}})', [], "job train: epochs is 0; allowed: 1 to 1000"),
        ('Job("make", "99_none")', [], "no notebook "),
        ('Job("make", "00_make")', ["--only", "nothing*"], "only='nothing*' matches no job; jobs: make"),
        ('Job("make", "00_make")', ["--profile", "cpu"], "profile='cpu': expected one of smoke"),
        ('Job("make", "00_make")', ["--data", __file__], "profile smoke reads no data.yaml"),
        ('Job("make", "00_make")', ["--publish"], "profile smoke publishes no figure"),
        ('Job("make", "00_make")', ["--report-only"], "no run of profile smoke to report on"),
    ],
)
def test_a_wrong_plan_or_argument_is_exit_code_2_and_one_line(tmp_path, capsys, jobs, arguments, message):
    home = Checkout.notebooks(tmp_path, NOTEBOOKS, jobs)
    assert main(["reproduce", "--profile", "smoke", "--notebooks", str(home), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "reports").exists()


# ------------------------------------------------------------------------------------ kills
WAITING = f"{TABLE}\nimport time\natomic_write(out.parent.parent / 'begun', '')\n"
WAITING += "while (out.parent.parent / 'hold').exists():\n    time.sleep(0.05)"


def begin(checkout, *arguments):
    """Start a run and wait until its notebook is in the middle of its work."""
    (checkout.out / ".work").mkdir(parents=True, exist_ok=True)
    (checkout.out / ".work" / "hold").touch()
    process = checkout.start(*arguments)
    wait_for((checkout.out / ".work" / "begun").exists)
    return process


@pytest.fixture
def waiting(tmp_path):
    books = {"00_make": NOTEBOOKS["00_make"], "01_wait": notebook(WAITING, parameters=NAMED)}
    return Checkout(tmp_path, books, 'Job("make", "00_make", {"name": "a"}), Job("wait", "01_wait", {"name": "b"})')


def test_after_kill_9_nothing_runs_on_and_the_same_command_goes_on(waiting):
    process = begin(waiting)
    log = waiting.out / "logs" / "snakemake.log"
    wait_for(lambda: "Finished job" in log.read_text())  # Snakemake has noted that make is done
    code, said = waiting.reproduce()
    assert code == 2 and f"process {process.pid} " in said  # a second one in the same folder is refused
    process.kill()
    process.wait()
    wait_for(lambda: not processes_in(waiting.folder), seconds=10)
    assert not (waiting.out / "tables" / "b.html").exists()
    (waiting.out / ".work" / "hold").unlink()
    code, said = waiting.reproduce()
    assert code == 0 and "make: started" not in said, said
    assert (waiting.out / "tables" / "b.html").read_text() == "<td>b hello</td>"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_takes_its_notebooks_with_it(waiting, how):
    process = begin(waiting)
    process.send_signal(how)
    assert process.wait(60) == 1
    wait_for(lambda: not processes_in(waiting.folder), seconds=10)


def test_a_job_that_takes_too_long_is_ended_and_says_so(tmp_path):
    checkout = Checkout(tmp_path, {"01_slow": notebook("import time\ntime.sleep(600)")}, 'Job("slow", "01_slow")',
                        settings="minutes=0.1")  # fmt: skip
    code, said = checkout.reproduce()
    assert code == 1 and "slow: failed" in said and "killed: ran longer than 0.1 minutes" in said
    assert not processes_in(checkout.folder)


def test_forced_all_is_scored_once_more_and_the_older_lines_stay(first):
    scored = next(first[0].runs.glob("scores/plain-*.jsonl"))
    before = read_lines(scored)
    assert first[0].reproduce("--only", "evaluate", "--force", "all")[0] == 0
    after = read_lines(scored)
    assert after[: len(before)] == before and len(after) == 2 * len(before)
