"""A profile on real data: what is there runs, what is missing is listed, and the cost is said first."""

import json
import sys

import pytest
import yaml
from clips import make_clip, write_csv

from mede_core.__main__ import main
from mede_core.batch import PlanError, cost
from mede_core.batch.plan import load_plan
from mede_core.config import METHODS

VIDEOS = 12
SPLITS = {
    "kinetics400": ["train", "train", "val"],
    "ucf101": ["train1 test2", "train1 test3", "test1"],
    "hmdb51": ["train1 test2", "train1 test3", "test1"],
}
SETTINGS = {"epochs": 2, "warmup_epochs": 1, "batch_size": 2, "swa_start": 1}
TIMER = """
import json, sys
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
config = json.load(open(arguments["--config"]))
with open(__file__ + ".log", "a") as log:
    print(json.dumps({**arguments, "method": config["method"], "epochs": config["epochs"]}), file=log)
print("some words of a library")
print(json.dumps({"seconds_per_step": 180.0, "clips_per_second_eval": 0.1, "trainable_bytes": 350_000_000}))
"""


def make_list(folder, name, splits, **sidecar):
    """A prepared list of videos of two classes that takes the given splits in turn."""
    (folder / "videos").mkdir(exist_ok=True)
    rows = [["path", "label", "split", "frames", "duration"]]
    for i in range(VIDEOS):
        (folder / "videos" / f"{i}.mp4").write_text("x")
        rows.append([f"{i}.mp4", "run" if i % 2 else "walk", splits[i // 2 % len(splits)], 9, 1.0])
    write_csv(folder / f"{name}.csv", rows)
    content = {"dataset": name, "root": str(folder / "videos"), "classes": ["run", "walk"]}
    content |= {"base": ["run"], "novel": ["walk"], **sidecar}
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Lists of videos, out-of-context clips, and a timing command that notes its calls."""
    for name, splits in SPLITS.items():
        make_list(tmp_path, name, splits)
    (tmp_path / "places").mkdir()
    (tmp_path / "places.txt").write_text("clip_0 240 97\nclip_1 240 97\n")
    (tmp_path / "timer.py").write_text(TIMER)
    monkeypatch.setattr(cost, "COMMAND", [sys.executable, str(tmp_path / "timer.py")])
    monkeypatch.setattr(cost, "seconds_to_read", lambda data: 20.0 if "ucf101" in data else 0.1)
    monkeypatch.setattr(cost, "available_cpus", lambda: 1)
    return tmp_path


def write(folder, **changes) -> str:
    content = {"model": "mede-small", "random_weights": True, "device": "cpu", "settings": SETTINGS,
               "datasets": {name: f"{name}.csv" for name in ("kinetics400", "ucf101")}, **changes}  # fmt: skip
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "data.yaml")


def plan_of(folder, **changes):
    return load_plan("paper", data=write(folder, **changes), runs=str(folder / "runs"))


def test_jobs_at_a_time_share_the_machines_cpus(world, monkeypatch):
    monkeypatch.setattr("mede_core.batch.plan.available_cpus", lambda: 8)
    data = write(world)
    assert [load_plan("paper", data=data, at_once=jobs).threads for jobs in (0, 1, 2, 4, 16)] == [4, 4, 4, 2, 1]


def test_a_job_without_data_is_listed_and_the_others_have_all_that_they_need(world):
    plan = plan_of(world)
    assert plan.missing["evaluate_hmdb51_frozen"] == ["hmdb51"]
    assert plan.missing["evaluate_scuba_froster"] == ["scuba.ucf101"]
    assert plan.missing["evaluate_kinetics600_froster"] == ["kinetics600"]
    runs = {job.id for job in plan.runnable}
    assert runs >= {"train_k400_open_mede", "evaluate_ucf101_open_mede", "evaluate_16shot_ucf101_frozen", "table_cost"}
    # 4 runs each on Kinetics-400, 16-shot UCF101 and 16-shot Kinetics-400: methods that share a trajectory share a run
    assert len(plan.trainings) == 12
    assert {config.epochs for config in plan.trainings.values()} == {2}
    for job in plan.runnable:
        assert {stamp.partition("/")[2] for stamp in plan.needs(job.id)} <= {*plan.trainings, *plan.scorings}


def test_tables_ask_for_what_is_there(world):
    both = plan_of(world, scuba={"ucf101": {"places": {"list": "places.txt", "root": "places"}}})
    asked = both.asked["out_of_context"]
    assert {ask.config.method for ask in asked} == set(METHODS)
    parts = {(one.part, one.context, one.order) for ask in asked for one in ask.sets}
    tested = {("scuba", "places", "forward"), ("scuba", "places", "single")}
    assert parts == tested | {(f"test{n}", "in", "forward") for n in (1, 2, 3)}
    assert {one.set for ask in both.asked["table_base_to_novel"] for one in ask.sets} == {"ucf101", "kinetics400"}
    without = plan_of(world, datasets={"ucf101": "ucf101.csv"})
    assert {ask.config.method for ask in without.asked["table_cross_dataset"]} == {"frozen"}


def test_the_settings_of_data_yaml_are_those_of_every_learner(world):
    plan = plan_of(world, settings={**SETTINGS, "views": 2})
    assert {config.batch_size for config in plan.trainings.values()} == {2}
    assert {one.views for asked in plan.scorings.values() for ask in asked for one in ask.sets} == {2}


def test_a_list_that_only_moves_names_the_same_runs_and_one_that_changes_others(world):
    before = {*plan_of(world).trainings}
    (world / "elsewhere").mkdir()
    for name in ("kinetics400.csv", "kinetics400.json"):
        (world / name).rename(world / "elsewhere" / name)
    lists = {"kinetics400": "elsewhere/kinetics400.csv", "ucf101": "ucf101.csv"}
    assert {*plan_of(world, datasets=lists).trainings} == before
    with open(world / "elsewhere" / "kinetics400.csv", "a") as stream:
        stream.write("0.mp4,walk,val,9,1.0\n")
    after = {*plan_of(world, datasets=lists).trainings}
    assert len(before & after) == 4  # those on UCF101


def test_what_is_there_what_is_missing_and_the_cost_are_said_first(world, caplog):
    make_list(world, "kinetics400", SPLITS["kinetics400"], problems=["7.mp4: truncated"])
    make_list(world, "ucf101", SPLITS["ucf101"], comparable=False)
    plan, out = plan_of(world), world / "reports"
    with caplog.at_level("INFO", logger="mede_core"):
        cost.report(plan, out, measure=True)
        once = len(timings(world))
        cost.report(plan, out, measure=True)
    said = "\n".join(caplog.messages)
    for line in (
        "model mede-small, RANDOM WEIGHTS",
        "device cpu, 1 process",
        "kinetics400  12 videos, 2 classes; 1 problems when it was prepared, such as 7.mp4: truncated",
        "ucf101       12 videos, 2 classes; base and novel classes are not the published ones",
        "hmdb51       missing",
        "not run for lack of scuba.ucf101: evaluate_scuba_frozen, ",
        # 8 clips in batches of 2, 2 epochs: 8 steps of 180 s, which 2 epochs of 0.35 GB are kept of
        "train finetune kinetics400               8 steps of 2 clips: about 24 min 0 s, 0.7 GB on disk",
        # three splits of 4 clips in 3 views at 0.1 a second would be 6 minutes, but reading one takes 20 s
        "score finetune kinetics400               36 clips: about 12 min 0 s, of which 6 min 0 s compute: reading",
        "`mede prepare --short-side 256`",
    ):
        assert line in said, line
    assert len(timings(world)) == once and max(int(call["--steps"]) for call in timings(world)) == cost.TIMED_STEPS


def test_reading_is_timed_on_a_few_videos_of_the_list(tmp_path):
    (tmp_path / "run").mkdir()
    names = [make_clip(tmp_path / "run" / f"{number}.mp4", 9).name for number in range(20)]
    lines = ["path,label", *(f"run/{name},{'walk' if number % 2 else 'run'}" for number, name in enumerate(names))]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    assert 0 < cost.seconds_to_read(str(tmp_path / "list.csv")) < 10


def timings(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "timer.py.log").read_text().splitlines()]


def test_a_list_without_the_videos_that_a_job_asks_for_is_refused(world):
    make_list(world, "ucf101", ["train1"])
    with pytest.raises(PlanError, match="split is 'test1'; allowed for ucf101.csv: all, train1"):
        cost.works(plan_of(world))
    for size, said in (
        (99, "8 videos give no full batch of 99"),
        (5, "8 videos give 1 full batch .* open_mede takes .* 2"),
    ):
        with pytest.raises(PlanError, match=said):
            cost.works(plan_of(world, settings={**SETTINGS, "batch_size": size}))


def test_a_notebook_that_many_jobs_share_is_read_once(world, monkeypatch):
    plan, read = plan_of(world), []
    monkeypatch.setattr("mede_core.batch.plan.notebook_modules", lambda path: read.append(path.stem) or [])
    assert all(plan.files(job.id) == [plan.file(job.id)] for job in plan.runnable)
    assert sorted(read) == sorted({job.notebook for job in plan.runnable}) and len(plan.runnable) > 20


def test_without_data_for_any_job_it_is_exit_code_2_before_anything_starts(world, capsys):
    where = ["--data", write(world, datasets={}), "--reports", str(world / "reports"), "--runs", str(world / "runs")]
    assert main(["reproduce", "--profile", "paper", *where, "--only", "train_k*"]) == 2
    assert "nothing can run" in capsys.readouterr().err and not (world / "reports").exists()
