"""A profile on real data: what is there runs, what is missing is listed, and the cost is said first.

Toy notebooks and a toy timing stand for training: what is tested is what runs with which values.
"""

import argparse
import dataclasses
import json
import logging
import shlex
import shutil
import signal
import sys

import pytest
import yaml
from toy_notebooks import PARAMETERS, notebook, project

from mede_core.reproduce import PlanError, cli, execute, preflight, runner
from mede_core.reproduce.estimate import Timings, disk_bytes, plan_work, seconds
from mede_core.reproduce.execute import Folders, Outcome
from mede_core.reproduce.fill import fill, unused
from mede_core.reproduce.plan import check_parameters, load_plan
from mede_core.reproduce.sources import read_sources

WRITE = "from mede_core.files import Workspace, atomic_write\nw = Workspace(out_dir, runs_dir)\n"
TRAIN = f"""{WRITE}
atomic_write(w.runs / method / "done.json", repr((data, random_weights, model, epochs)))"""
EVALUATE = f"""{WRITE}
atomic_write(w.results / f"evaluate_{{name}}.txt", repr((test_data, views)))"""
TABLE = f"""{WRITE}
found = sorted(file.stem for file in w.results.glob("evaluate_*.txt"))
atomic_write(w.tables / "table.html", f"<table><td>{{found}} without {{not_run}}</td></table>")"""
MODEL = """
model = ""
weights = ""
random_weights = False
device = ""
epochs = 0
warmup_epochs = -1
batch_size = 0
views = 0"""
NOTEBOOKS = {
    "train.ipynb": notebook(TRAIN, parameters=f'{PARAMETERS}{MODEL}\nmethod = ""\ndata = ""\ndata_split = ""'),
    "evaluate.ipynb": notebook(
        EVALUATE, parameters=f'{PARAMETERS}{MODEL}\nname = ""\nmethod = ""\ntest_data = ""\ntest_split = ""'
    ),
    "table.ipynb": notebook(TABLE, parameters=f'{PARAMETERS}\nnot_run = ""'),
}
PLAN = """
profiles: {cpu: {}, paper: {data: true, jobs: 2}}
steps:
  - id: train_{method}
    notebook: train.ipynb
    matrix: {method: [open_mede]}
    provides: ["runs:{method}/done.json"]
    parameters:
      common: {method: "{method}"}
      paper: {data: "${kinetics400}", data_split: train, model: "${model}"}
  - id: evaluate_{dataset}
    notebook: evaluate.ipynb
    matrix: {dataset: [ucf101, hmdb51]}
    provides: ["results/evaluate_{dataset}.txt"]
    parameters:
      common: {name: "{dataset}", method: frozen}
      paper: {test_data: "${{dataset}}", test_split: "test1, test2"}
  - {id: table, notebook: table.ipynb, needs: ["evaluate_*", "train_*"], provides: [tables/table.html]}
"""
TIMER = """
import json, sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
config = json.load(open(arguments["--config"]))
with open(__file__ + ".log", "a") as log:
    print(json.dumps({**arguments, "method": config["method"], "epochs": config["epochs"]}), file=log)
print("some words of a library")
print(json.dumps({"seconds_per_step": 180.0, "clips_per_second_eval": 0.1, "peak_bytes": 3e9,
                  "trainable_bytes": 350_000_000, "device": "cpu", "steps": int(arguments["--steps"])}))
"""
VIDEOS = 10


def make_list(folder, name, splits, **sidecar):
    """Write a prepared list of ten videos that takes the given splits in turn; return its path."""
    (folder / "videos").mkdir(exist_ok=True)
    rows = []
    for i in range(VIDEOS):
        (folder / "videos" / f"{i}.mp4").write_text("x")
        rows.append(f"{i}.mp4,{'run' if i % 2 else 'walk'},{splits[i % len(splits)]},9,1.0")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(["path,label,split,frames,duration", *rows]) + "\n")
    content = {"dataset": name, "root": str(folder / "videos"), "classes": ["run", "walk"], **sidecar}
    path.with_suffix(".json").write_text(json.dumps(content))
    return path


def make_world(folder, **changes):
    """Write a plan, lists of videos, data.yaml and the timing command; return the plan's path."""
    plan = project(folder, NOTEBOOKS, PLAN)
    make_list(folder, "kinetics400", ["train", "train", "train", "train", "val"], problems=["7.mp4: truncated"])
    make_list(folder, "ucf101", ["test1", "test2 train1", "train1"])
    make_list(folder, "hmdb51", ["test1", "test2"], comparable=False)
    (folder / "timer.py").write_text(TIMER)
    write_data(folder, **changes)
    return plan


def write_data(folder, **changes):
    content = {
        "model": "ViT-B-16",
        "random_weights": True,
        "device": "cpu",
        "settings": {"epochs": 2, "warmup_epochs": 1, "batch_size": 2, "views": 3, "swa_start": 1},
        "datasets": {"kinetics400": "kinetics400.csv", "ucf101": "ucf101.csv"},
        **changes,
    }
    (folder / "data.yaml").write_text(yaml.safe_dump(content))


def timings_of(folder) -> list[dict]:
    log = folder / "timer.py.log"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


@pytest.fixture(scope="module")
def call():
    """Return a function that runs the command line in this process: (exit code, what it said)."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("mede_core")
    logger.addHandler(handler)
    patch = pytest.MonkeyPatch()
    patch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own handlers
    patch.setattr(sys.stderr, "write", lambda text: messages.append(text) or len(text))

    def run(plan, *arguments, profile="paper"):
        messages.clear()
        timer = shlex.join([sys.executable, str(plan.parents[1] / "timer.py")])
        code = cli.main(["--plan", str(plan), "--profile", profile, "--cost-command", timer, *arguments])
        return code, "\n".join(messages)

    yield run
    patch.undo()
    logger.removeHandler(handler)


@pytest.fixture(scope="module")
def first(tmp_path_factory, call):
    """One run with two of three datasets: (folder, plan, exit code, what it said)."""
    folder = tmp_path_factory.mktemp("paper")
    plan = make_world(folder)
    return folder, plan, *call(plan)


@pytest.fixture
def entries(first):
    return json.loads((first[0] / "reports" / "paper" / "manifest.json").read_text())["steps"]


def test_a_step_without_data_is_no_failure_and_is_marked_in_manifest_and_summary(first, entries):
    assert first[2] == 0, first[3]
    assert {name: entry["status"] for name, entry in entries.items()} == {
        "train_open_mede": "done", "evaluate_ucf101": "done", "evaluate_hmdb51": "missing data", "table": "done",
    }  # fmt: skip
    assert entries["evaluate_hmdb51"]["reason"] == "not run: needs hmdb51"
    for name in ("summary.md", "summary.html"):
        text = (first[0] / "reports" / "paper" / name).read_text()
        assert "not run: needs hmdb51" in text and "1 without data not run" in text
    assert "| – not run: needs hmdb51 |" in (first[0] / "reports" / "paper" / "summary.md").read_text()
    assert not (first[0] / "reports" / "paper" / "executed" / "evaluate_hmdb51.ipynb").exists()


def test_a_step_that_needs_it_runs_without_it_and_is_told(first):
    table = (first[0] / "reports" / "paper" / "tables" / "table.html").read_text()
    assert "['evaluate_ucf101'] without evaluate_hmdb51<" in table


def test_notebooks_get_absolute_lists_the_settings_and_values_of_their_type(first):
    folder = first[0]
    trained = (folder / "runs" / "paper" / "open_mede" / "done.json").read_text()
    assert trained == repr((str(folder / "kinetics400.csv"), True, "ViT-B-16", 2))
    evaluated = (folder / "reports" / "paper" / "results" / "evaluate_ucf101.txt").read_text()
    assert evaluated == repr((str(folder / "ucf101.csv"), 3))


def test_manifest_and_gallery_cards_hold_placeholders_and_no_path_of_this_machine(first, entries):
    assert entries["evaluate_ucf101"]["parameters"]["test_data"] == "${ucf101}"
    assert entries["evaluate_ucf101"]["chosen"]["test_data"] == "${ucf101}"
    for name in ("manifest.json", "summary.html", "summary.md", "gallery/index.html", "timing.json"):
        assert str(first[0]) not in (first[0] / "reports" / "paper" / name).read_text(), name


def test_it_is_said_first_what_is_there_and_what_is_missing(first):
    said = first[3]
    for line in (
        "model ViT-B-16, RANDOM WEIGHTS",
        "device cpu, 1 process",
        "kinetics400  10 videos (train 8, val 2), 2 classes; 1 problems when it was prepared, such as 7.mp4: truncated",
        "ucf101       10 videos (test1 4, test2 3, train1 6), 2 classes",
        "hmdb51       missing",
        "not used: settings.swa_start=1: no chosen notebook has a parameter of this name",
        "evaluate_hmdb51              hmdb51",
    ):
        assert line in said, line
    assert said.index("ssv2         missing") < said.index("cost, on cpu") < said.index("train_open_mede: started")


def test_the_cost_is_counted_and_timed_with_no_more_steps_than_are_planned(first):
    # 8 clips in batches of 2, 2 epochs: 8 steps of 180 s; 7 clips of test1 and test2 in 3 views: 21 at 0.1 a second.
    assert "train_open_mede              8 steps of 2 clips, 16 clips read: about 24 min 0 s, 3 GB of memory, " \
           "2 epochs of 0.35 GB on disk" in first[3]  # fmt: skip
    assert "evaluate_ucf101              no training, 21 clips evaluated, views counted: about 3 min 30 s" in first[3]
    assert "in all about 27 min 30 s; the trajectories take 0.7 GB on disk" in first[3]
    asked = {call["method"]: call for call in timings_of(first[0])}
    assert {name: (call["--steps"], call["--device"], call["epochs"]) for name, call in asked.items()} == {
        "open_mede": ("8", "cpu", 2), "frozen": ("10", "cpu", 2),
    }  # fmt: skip


@pytest.fixture
def dry_run(first, call):
    """Return a function that gives {step: what a run would do with it}, and all that was said, and starts nothing."""

    def run(*arguments):
        before = len(timings_of(first[0]))
        code, said = call(first[1], "--dry-run", *arguments)
        assert code == 0, said
        assert len(timings_of(first[0])) == before
        lines = [line for line in said.splitlines() if ".ipynb" in line and " min  " in line]
        return {line.split()[0]: line.split(" min  ")[1] for line in lines}, said

    yield run
    make_world(first[0])


UP_TO_DATE = {"train_open_mede": "up to date", "evaluate_ucf101": "up to date", "table": "up to date"}


def test_what_is_up_to_date_is_not_run_and_not_timed_again(first, call, dry_run):
    assert dry_run()[0] == UP_TO_DATE
    before = len(timings_of(first[0]))
    code, said = call(first[1])
    assert code == 0 and "started" not in said and "cost" not in said
    assert len(timings_of(first[0])) == before


def test_a_dry_run_shows_the_cost_where_it_was_timed_before(first, dry_run):
    assert "about 24 min 0 s" in dry_run("--force")[1]
    kept = first[0] / "reports" / "paper" / "timing.json"
    text = kept.read_text()
    kept.unlink()
    try:
        assert "16 clips read: not timed" in dry_run("--force")[1]
    finally:
        kept.write_text(text)


def test_a_list_that_changes_makes_its_steps_stale_and_one_that_only_moves_does_not(first, dry_run):
    folder = first[0]
    (folder / "elsewhere").mkdir()
    for name in ("ucf101.csv", "ucf101.json"):
        shutil.move(folder / name, folder / "elsewhere" / name)
    write_data(folder, datasets={"kinetics400": "kinetics400.csv", "ucf101": "elsewhere/ucf101.csv"})
    assert dry_run()[0] == UP_TO_DATE
    with open(folder / "elsewhere" / "ucf101.csv", "a") as file:
        file.write("0.mp4,walk,test3,9,1.0\n")
    assert dry_run()[0] == {**UP_TO_DATE, "evaluate_ucf101": "changed: data ucf101",
                            "table": "perhaps, after evaluate_ucf101"}  # fmt: skip


def test_a_setting_makes_the_steps_stale_that_take_it(first, dry_run):
    settings = yaml.safe_load((first[0] / "data.yaml").read_text())["settings"]
    write_data(first[0], settings={**settings, "views": 1})
    reasons = dry_run()[0]
    assert reasons["evaluate_ucf101"] == reasons["train_open_mede"] == "changed: parameters"


def test_a_dataset_that_comes_is_run_and_one_that_goes_takes_its_numbers_out_of_the_table(first, dry_run):
    lists = {name: f"{name}.csv" for name in ("kinetics400", "ucf101", "hmdb51")}
    write_data(first[0], datasets=lists)
    reasons, said = dry_run()
    assert reasons == {**UP_TO_DATE, "evaluate_hmdb51": "never finished", "table": "changed: parameters"}
    assert "base and novel classes are not the published ones" in said
    del lists["ucf101"]
    write_data(first[0], datasets=lists)
    reasons = dry_run()[0]
    assert "evaluate_ucf101" not in reasons
    assert reasons["table"] == "changed: parameters; inputs results/evaluate_ucf101.txt"


# --- refused before anything starts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"datasets": {}}, [], "nothing can run"),
        ({"datasets": {}}, [], "train_open_mede: needs kinetics400"),
        ({"datasets": {"ucf101": "ucf101.csv"}}, ["--only", "train_*"], "nothing can run"),
        ({"device": "gpu"}, [], "device='gpu'"),
        ({"datasets": {"ucf101": "hmdb51.csv"}}, [], "its sidecar says that it lists hmdb51"),
        ({"settings": {"epochs": 2, "warmup_epochs": 1, "batch_size": 9}}, [], "8 clips give no full batch of 9"),
        ({}, ["--data", "other.yaml"], "no other.yaml: copy data.yaml.example to data.yaml"),
        ({}, ["--publish"], "profile paper publishes no figure"),
    ],
)
def test_wrong_or_no_data_is_exit_code_2_before_anything_starts(tmp_path, call, changes, arguments, message):
    code, said = call(make_world(tmp_path, **changes), *arguments)
    assert code == 2 and message in said
    assert not (tmp_path / "reports").exists() and not timings_of(tmp_path)


def test_a_list_without_the_split_that_a_step_asks_for_is_refused(tmp_path, call):
    plan = make_world(tmp_path)
    make_list(tmp_path, "ucf101", ["test1", "train1"])
    make_list(tmp_path, "kinetics400", ["val"])
    code, said = call(plan)
    assert code == 2 and "2 steps cannot do" in said
    assert "evaluate_ucf101: split='test2', half='all': no such videos in the list of ucf101; its splits: test1" in said
    assert "train_open_mede: split='train'" in said


def test_without_data_yaml_it_is_said_what_to_copy(tmp_path, call):
    plan = make_world(tmp_path)
    (tmp_path / "data.yaml").unlink()
    code, said = call(plan)
    assert code == 2 and "copy data.yaml.example" in said


def test_a_profile_that_reads_no_data_yaml_takes_none(tmp_path, call):
    plan = make_world(tmp_path)
    code, said = call(plan, "--data", str(tmp_path / "data.yaml"), profile="cpu")
    assert code == 2 and "profile cpu reads no data.yaml" in said
    (tmp_path / "data.yaml").unlink()
    assert call(plan, "--dry-run", profile="cpu")[0] == 0


# --- without processes --------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path):
    """Return a function that gives (plan filled, sources, parameters) of a world with changes to data.yaml."""

    def prepare(plan_text=PLAN, **changes):
        path = make_world(tmp_path, **changes)
        path.write_text(plan_text)
        plan, sources = load_plan(path, "paper"), read_sources(tmp_path / "data.yaml")
        ids = {step.id for step in plan.steps}
        plan = fill(plan, sources, ids)
        return plan, sources, check_parameters(plan, ids)

    return prepare


@pytest.mark.parametrize(("ok", "code"), [(True, 0), (False, 1)])
def test_missing_data_hides_no_failure(tmp_path, prepared, monkeypatch, ok, code):
    plan, _, parameters = prepared()
    monkeypatch.setattr(runner, "STAGGER_S", 0)
    folders = Folders(plan.folder, tmp_path / "out", tmp_path / "runs", "../out", "../runs")

    def start(plan, step, folders, attempt):
        folders.executed(step.id).parent.mkdir(parents=True, exist_ok=True)
        folders.executed(step.id).touch()
        return argparse.Namespace(step=step)

    def poll(running, folders):
        good = ok or running.step.id != "evaluate_ucf101"
        return Outcome(good, "" if good else "no luck", 1.0, 1.0, {})

    monkeypatch.setattr(execute, "start", start)
    monkeypatch.setattr(execute, "poll", poll)
    one = runner.Runner(plan, folders, parameters, jobs=1, forced=set())
    assert one.run() == code
    assert one.entries["evaluate_hmdb51"]["status"] == "missing data"
    assert one.entries["table"]["status"] == ("done" if ok else "blocked")


def test_model_weights_and_device_reach_every_notebook_that_takes_them(tmp_path, prepared):
    (tmp_path / "clip.pt").write_text("weights")
    plan, _, _ = prepared(weights="clip.pt", random_weights=False)
    for name in ("train_open_mede", "evaluate_ucf101"):
        step = plan.step(name)
        expected = {"model": "ViT-B-16", "weights": str(tmp_path / "clip.pt"), "random_weights": False, "device": "cpu"}
        assert expected.items() <= step.parameters.items()
        assert step.written["weights"] == "${weights}" and step.data["weights"]
    assert not {"model", "weights", "device"} & plan.step("table").parameters.keys()


def test_what_a_step_says_goes_before_the_settings_and_is_reported(prepared):
    plan, sources, _ = prepared(PLAN.replace('name: "{dataset}"', 'name: "{dataset}", views: 1'))
    assert plan.step("evaluate_ucf101").parameters["views"] == 1
    assert plan.step("train_open_mede").parameters["views"] == 3
    lines = unused(plan, sources, {step.id for step in plan.steps})
    assert "settings.views=3: the plan says otherwise for evaluate_ucf101" in lines


def test_methods_that_share_a_trajectory_cost_one_training(prepared):
    plan, sources, parameters = prepared(PLAN.replace("[open_mede]", "[open_mede, open_mede_no_gwa, finetune]"))
    works = plan_work(plan, sources, parameters, parameters)
    shares = {work.step_id: work.shares for work in works if work.trains}
    assert shares == {"train_open_mede": "", "train_open_mede_no_gwa": "train_open_mede", "train_finetune": ""}
    answer = {"seconds_per_step": 2.0, "clips_per_second_eval": 1.0, "trainable_bytes": 5}
    costs = {work.step_id: (seconds(work, answer), disk_bytes(work, answer)) for work in works}
    assert costs["train_open_mede"] == (16.0, 10) and costs["train_open_mede_no_gwa"] == (0.0, 0)
    assert costs["evaluate_ucf101"] == (21.0, 0)
    assert seconds(works[0], answer, processes=4) == 4.0


def test_an_out_of_context_step_counts_the_clips_of_its_list_and_not_the_training_list(tmp_path, prepared):
    (tmp_path / "list.txt").write_text("a 9 1\nb 9 1\n\n")
    step = 'test_data: "${{dataset}}", test_split: "test1, test2"'
    plan, sources, parameters = prepared(
        PLAN.replace(step, 'name: "${scuba.ucf101.{dataset}.list}"'),
        scuba={"ucf101": {"ucf101": {"list": "list.txt", "root": "."}}},
    )
    works = {work.step_id: work for work in plan_work(plan, sources, parameters, parameters)}
    assert works["evaluate_ucf101"].clips == 2 * 3
    assert plan.step("evaluate_hmdb51").missing == ("scuba.ucf101.hmdb51.list",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("import json, sys", "raise SystemExit('no memory')"), "exit code 1: no memory"),
        (("180.0", "0"), "seconds_per_step is 0; expected a number above 0"),
        (('"clips_per_second_eval": 0.1, ', ""), "'clips_per_second_eval'"),
        (("180.0", "float('nan')"), "seconds_per_step is nan"),
        (("print(json.dumps({\"sec", "exit()\nprint(json.dumps({\"sec"), "is not understood"),
    ],
)  # fmt: skip
def test_a_timing_that_fails_is_said_and_gives_no_estimate(tmp_path, prepared, caplog, change, message):
    plan, sources, parameters = prepared()
    assert change[0] in TIMER
    (tmp_path / "timer.py").write_text(TIMER.replace(*change))
    works = [work for work in plan_work(plan, sources, parameters, parameters) if work.trains]
    timings = Timings(tmp_path / "timing.json", "cpu", [sys.executable, str(tmp_path / "timer.py")])
    with caplog.at_level(logging.INFO, logger="mede_core"):
        preflight.report_cost(works, timings, sources, tmp_path / "runs", measure=True)
    assert "no estimate: " in caplog.text and message in caplog.text
    assert "16 clips read: not timed" in caplog.text and "in all" not in caplog.text
    assert not (tmp_path / "timing.json").exists()


def test_a_timing_holds_for_its_model_batch_frames_and_device_and_is_kept(tmp_path, prepared):
    plan, sources, parameters = prepared()
    works = [work for work in plan_work(plan, sources, parameters, parameters) if work.trains]
    command = [sys.executable, str(tmp_path / "timer.py")]
    timings = Timings(tmp_path / "timing.json", "cpu", command)
    assert timings.measure(works[0]) == ""
    assert Timings(tmp_path / "timing.json", "cpu", command).get(works[0])["seconds_per_step"] == 180.0
    assert Timings(tmp_path / "timing.json", "cuda", command).get(works[0]) is None
    for change in ({"batch_size": 4}, {"num_frames": 16}, {"method": "finetune"}, {"model": "ViT-B-32"}):
        other = dataclasses.replace(works[0], config=dataclasses.replace(works[0].config, **change))
        assert timings.get(other) is None, change
    assert timings.get(dataclasses.replace(works[0], steps=9)) is None  # 8 were timed


def test_a_damaged_file_of_timings_is_measured_anew(tmp_path, caplog):
    (tmp_path / "timing.json").write_text('{"a": ')
    assert Timings(tmp_path / "timing.json", "cpu").known == {}
    assert "timing.json is damaged" in caplog.text


def test_trainings_that_do_not_fit_the_disk_are_said(tmp_path, prepared, caplog):
    plan, sources, parameters = prepared()
    (tmp_path / "timer.py").write_text(TIMER.replace("350_000_000", "10**18"))
    works = plan_work(plan, sources, parameters, parameters)
    timings = Timings(tmp_path / "timing.json", "cpu", [sys.executable, str(tmp_path / "timer.py")])
    preflight.report_cost(works, timings, sources, tmp_path / "not" / "yet", measure=True)
    assert "GB are FREE there" in caplog.text


def test_gpus_and_absent_videos_are_reported(tmp_path, prepared):
    (tmp_path / "videos").mkdir()
    _, sources, _ = prepared(device="cuda", processes=4)
    (tmp_path / "videos" / "3.mp4").unlink()
    sources = read_sources(tmp_path / "data.yaml")
    said = "\n".join(preflight.what_is_there(sources, "found", ["GPU A", "GPU B"]))
    assert "device cuda, 4 processes; GPUs: GPU A, GPU B; MORE processes than GPUs (2)" in said
    assert "1 of 10 sampled videos are NOT there" in said
    assert "NO GPU here" in "\n".join(preflight.what_is_there(sources, "found", []))


def test_an_impossible_configuration_of_a_step_is_refused_by_its_name(prepared):
    plan, sources, parameters = prepared()
    parameters["train_open_mede"]["epochs"] = -5
    with pytest.raises(PlanError, match="step train_open_mede: epochs is -5; allowed: 1 to 1000"):
        plan_work(plan, sources, parameters, parameters)
