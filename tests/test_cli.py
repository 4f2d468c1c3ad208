"""`python -m mede_core train|evaluate` and the cost command: flags are the configuration's fields."""

import json

import pytest

from mede_core.__main__ import config_from, main, parser
from mede_core.config import METHODS, load_config
from mede_core.report.costs import main as cost_main
from mede_core.report.costs import measure

TINY = ["--epochs", "2", "--warmup-epochs", "1", "--train-clips", "48", "--batch-size", "16", "--test-clips", "48"]


def test_flags_win_over_the_file_and_the_file_over_the_profile(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"rho": 0.5, "seed": 3}))
    arguments = [
        "train",
        "--profile",
        "smoke",
        "--config",
        str(tmp_path / "run.json"),
        "--seed",
        "4",
        "--no-inner-sync",
    ]
    config = config_from(parser().parse_args(arguments))
    assert config == load_config("smoke", rho=0.5, seed=4, inner_sync=False)


def test_train_prints_the_run_folder_and_evaluate_its_records(tmp_path, capsys):
    runs = ["--runs", str(tmp_path / "runs")]
    assert main(["train", "--method", "open_mede", *TINY, *runs]) == 0
    run_dir = capsys.readouterr().out.strip()
    assert run_dir.startswith(str(tmp_path / "runs" / "meta-"))
    out = tmp_path / "results" / "mine.jsonl"
    assert main(["evaluate", "--method", "open_mede", *TINY, *runs, "--out", str(out)]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(printed) == 8 and {record["method"] for record in printed} == {"open_mede"}
    assert len(out.read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--rho", "2"], "rho is 2.0; allowed: 0.0 to 1.0"),
        (["train", "--method", "frozen"], "method 'frozen' does not train"),
        (["train", "--temporal-module", "expanded"], "use trainable='visual'"),
        (["train", "--config", "absent.json"], "--config 'absent.json' cannot be read"),
        (["evaluate", "--runs", "nowhere"], "is not finished; train it first"),
        (["train", "--profile", "paper", "--data", "absent.csv"], "weights 'openai'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_cost_measures_every_method_and_a_meta_step_sees_two_batches():
    configs = {name: load_config(method=name, batch_size=4) for name in METHODS}
    costs = measure(configs, steps=2, classes=5)
    assert costs["frozen"].seconds_per_step == costs["frozen"].trainable_bytes == 0
    assert costs["open_mede"].clips_per_step == 8 and costs["finetune"].clips_per_step == 4
    assert all(costs[name].seconds_per_step > 0 for name in METHODS if name != "frozen")
    assert all(cost.clips_per_second_eval > 0 for cost in costs.values())
    one_batch, two_copies = costs["finetune"].peak_bytes, 2 * costs["finetune"].trainable_bytes
    assert one_batch < costs["open_mede"].peak_bytes <= 1.1 * one_batch + two_copies
    assert {cost.steps for cost in costs.values()} == {2}
    hurried = measure({"it": configs["frozen"]}, steps=50, seconds=0.0, classes=5)["it"]
    assert hurried.steps == 1  # a slow machine is not held up by its own estimate
    with pytest.raises(ValueError, match="steps is 0; it must be at least 1"):
        measure(configs, steps=0)


def test_cost_command_prints_one_json_line(tmp_path, capsys):
    (tmp_path / "run.json").write_text(json.dumps({"batch_size": 2, "method": "froster"}))
    assert cost_main(["--config", str(tmp_path / "run.json"), "--steps", "1", "--classes", "3"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert {"seconds_per_step", "clips_per_second_eval", "peak_bytes", "trainable_bytes", "device"} <= json.loads(
        line
    ).keys()
    (tmp_path / "run.json").write_text(json.dumps({"bach_size": 2}))
    assert cost_main(["--config", str(tmp_path / "run.json")]) == 2
