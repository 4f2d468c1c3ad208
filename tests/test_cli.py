"""`mede VERB`: flags are a function's parameters; whatever is typed wrong ends with exit code 2 and one line."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from mede_core.__main__ import main
from mede_core.batch.command import command
from mede_core.batch.verbs import effective
from mede_core.config import Config, load_config
from mede_core.flags import Count, File

TINY = ["--epochs", "2", "--warmup-epochs", "1", "--train-clips", "48", "--batch-size", "16", "--test-clips", "48"]


# ------------------------------------------------------------------------------------ a function as a verb
def verb(
    names: Sequence[str],
    /,
    *,
    count: Count = 3,
    kind: Literal["", "a", "b"] = "",
    numbers: Sequence[int] = (),
    file: File = "",
    yes: bool = False,
    maybe: bool | None = None,
    **settings,
) -> dict:
    """Say what was given.

    Args:
        names: of things,
            some or all
        count: how many
    """
    return {"names": names, "count": count, "kind": kind, "numbers": list(numbers), "file": file, "yes": yes,
            "maybe": maybe, **{name: value for name, value in settings.items() if value is not None}}  # fmt: skip


def run(*arguments):
    verbs = {"say": ("say", "test_cli:verb", lambda answer: answer), "other": ("else", "no.such:module", print)}
    return command(verbs, arguments)


def test_flags_become_the_values_that_their_types_say():
    typed = "say x y --count 5 --kind b --numbers 1 2 --yes --no-maybe --rho 0.5 --no-inner-sync --seed 4"
    given = {"names": ["x", "y"], "count": 5, "kind": "b", "numbers": [1, 2], "file": "", "yes": True, "maybe": False}
    assert run(*typed.split()) == {**given, "rho": 0.5, "inner_sync": False, "seed": 4}
    assert run("say", "x")["count"] == 3 and run("say", "x")["maybe"] is None


def test_help_holds_the_docstring_every_flag_and_what_a_setting_allows(capsys):
    assert run("say", "--help") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Say what was given." in shown and "of things, some or all" in shown and "how many [default: 3]" in shown
    for name in ("count", "kind", "numbers", *Config.model_fields):
        assert f"--{name.replace('_', '-')}" in shown
    assert "chance is 0.25; allowed: 0.0 to 1.0" in shown
    with pytest.raises(ModuleNotFoundError):
        run("other")  # only what is asked for is loaded


def test_flags_win_over_the_file_and_the_file_over_the_profile(tmp_path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"rho": 0.5, "seed": 3}))
    config = effective("smoke", str(file), {"seed": 4, "inner_sync": False, "epochs": None})
    assert config == load_config("smoke", rho=0.5, seed=4, inner_sync=False)


# ------------------------------------------------------------------------------------ what is typed wrong
ANY = """--nope | --nope 1 | --nope=1 | -x | -h | -v | --helpp | surplus words | --yes=maybe | --=1 | -- surplus |
    --rho2 0.5 | --config.rho 1 | --set rho=1 | -rho 1 | --Device cpu | --profil smoke | --verbose | --version |
    ' ' | '' | ümlaut | '--a b' | ---seed 1 | -1 | 1 | help | all | $ | * | --debug | --quiet | --no-nope | -q"""
SETTINGS = """--rho 2 | --rho x | --rho nan | --rho -0.1 | --rho | --rho= | --epochs 0 | --epochs 1.5 | --epochs x |
    --batch-size 1 | --outer-lr 0 | --inner-lr -1 | --query-weight inf | --method magic | --trainable text |
    --pairing last | --temporal-module expanded | --adapter-width 0 | --warmup-epochs 9 | --precision fp8 |
    --seed -1 | --seed 1e3 | --swa-start 9 --method froster | --no-rho | --learning-rate 1 | --no-inner-sync=1 |
    --profile gpu | --half old | --config absent.json | --config array.json | --config broken.json |
    --config unknown.json | --config wrong.json | --config folder | --device gpu | --device cuda:x | --device '' |
    --model ViT-Z"""
WORKSPACE = """--runs file/below | --runs file | --num-workers -1 | --num-workers many | --older maybe |
    --data absent.csv | --data '' | --data folder | --data list.csv --data-split train1 |
    --data list.csv --half base | --data broken.csv | --prompts absent.json | --prompts list.csv"""
WRONG = {
    "": "trian | training | train,evaluate | -x | --nope | world2 | '' | Train",
    "train": f"{SETTINGS} | {WORKSPACE} | --method frozen | --again=twice | --model RN50 --random-weights",
    "evaluate": f"""{SETTINGS} | {WORKSPACE} | --out folder | --out file/below | --test-data absent.csv |
    --test-half old | --test-split x | --skip-bad=1 | --test-half base | --data list.csv --test-data broken.csv""",
    "predict": """ | --classes a b | {1} | {1} --classes | {1} --classes a a | {1} --classes '' b | --video {0} |
    absent.mp4 --classes a b | folder --classes a b | file --classes a b | *.avi --classes a b | --classes a {1} |
    {1} --classes-file absent.txt | {1} --classes-file empty.txt | {0} --classes-file list.csv | {0} --top-k 0 |
    {0} --top-k x | {0} --views -1 | {0} --frames -8 | {0} --sampling random | {0} --prompts absent.json |
    {0} --prompts '{{}} {{' | {0} --prompts a b | {0} --explain strip.xyz | {0} other.mp4 |
    other.mp4 {0} --explain a.png | {0} --model ViT-Z | {0} --model ViT-B-16-SigLIP | {0} --device gpu |
    {1} --checkpoint absent | {0} --checkpoint folder | {0} --windows -1 |
    {0} --windows x | {0} --order-test=1""".format("clip.mp4 --classes a b", "clip.mp4"),
    "bias": """list.csv |  | --model mede-small/shipped | absent.csv {1} | folder {1} | file {1} | broken.csv {1} |
    list.csv --model nothing | list.csv --model mede-small/ | list.csv --model hf:x | list.csv --model python: |
    list.csv --model python:absent:f | list.csv --model python:json:f | list.csv --model python:json:JSONDecoder |
    list.csv --model python:json:loads | list.csv --model hf:x --random-weights | {0} --classes a a | {0} --classes |
    list.csv --model torchvision:r3d_18 --classes a b | {0} --classes-file absent.txt | {0} --classes-file empty.txt |
    {0} --classes a b --classes-file list.csv | {0} --split train1 | folder {1} --split val |
    {0} --masks absent | {0} --masks file | {0} --first-mask 2 |
    {0} --masks folder --backgrounds absent | {0} --backgrounds file | {0} --out file | {0} --device gpu""".format(
        "list.csv --model mede-small/shipped", "--model mede-small/shipped"
    ),
    "prepare": """ | --dataset ucf101 | --root folder --out a.csv | {0} | --dataset ucf101 --root folder --out |
    --dataset ucf101 --root absent --out a.csv | --dataset ucf101 --root file --out a.csv | {0} --out a.txt |
    {0} --dataset imagenet | {0} --dataset list --classes absent.txt | {0} --dataset folders --out folder |
    {0} --check some | {0} --workers 0 | {0} --workers x | {0} --base absent | {0} --novel absent |
    {0} --short-side 8 | {0} --short-side x | {0} --jobs -1""".format("--dataset ucf101 --root folder --out a.csv"),
    "scuba": """ | --manifest list.csv | --seed 1 | {0} --seed x | {0} --seed -1 | {0} --per-video 0 |
    {0} --smooth -1 | {0} --short-side x | {0} --image-format gif | {0} --first-mask 2 | {0} --split train1 |
    {0} --root absent | {0} --classes absent.txt | {0} --area-rule=3 | {0} --mask-format gif | {0} --masks absent |
    {0} --backgrounds absent | {0} --backgrounds file | {0} --manifest absent.csv | {0} --manifest broken.csv |
    {0} --out file/below | {0} --root folder --split a""".format(
        "--manifest list.csv --masks folder --mask-format png --backgrounds noise --out out --seed 0"
    ),
    "study": """ | magic | main magic | main --seeds x | main --seeds -1 | main --seeds 1.5 | main --variants magic |
    main --runs file | main --to file | main --jobs 2 | main --retrain=1 | main --seeds | --seeds 1 |
    main --runs""",
    "world": " | nothing | pretrian | --out a | card2 | Checks",
    "world pretrain": """ | --out | --out file | --out file/below | --out a --steps 5 | --out a --steps 0 |
    --out a --steps x | --out a --width 25 | --out a --width 0 | --out a --layers 0 |
    --out a --seed -1 | --out a --home-seed x""",
    "world card": "--out a | now",
    "world checks": """--seeds x | --seeds -1 | --weights absent | --weights folder | --runs file | --count 0 |
    --count x | --out folder | --out file/below | --seeds""",
    "cost": f"{SETTINGS} | --steps 0 | --steps x | --seconds 0 | --seconds nan | --classes 0 | --runs a",
    "reproduce": """--profile gpu | --profile | --only nothing | --only | --force yes | --force | --force 2 |
    --jobs -1 | --jobs x | --jobs 1.5 | --jobs 1000 | --data absent | --data folder | --data file | --executor nothing |
    --executor '' | --older maybe | --report-only --reports folder | --notebooks absent | --notebooks folder |
    --reports file | --reports file/below | --runs file | --runs file/below | --dry-run=1 |
    --profile paper --data broken.csv --dry-run | --profile paper --data empty.txt --dry-run""",
    "ship": "--runs file | --runs | --restamp | --runs file/below | --restamp nonsense",
    "doctor": "all | --device cpu",
    "clean": "--runs file | --runs | --runs file/below | --yes=1",
}

UNNAMED = ("clip.mp4", "--config wrong.json", "--test-split x", "--test-half base", "--report-only --reports folder")

IN_ONE_PROCESS = """
import contextlib, io, json, shlex, sys
from mede_core.__main__ import main
verb, told = sys.argv[1].split(), []
for line in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*verb, *shlex.split(line)])
    told.append([line, code, out.getvalue(), err.getvalue(), "torch" in sys.modules])
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from clips import make_clip

    folder = tmp_path_factory.mktemp("wrong")
    (folder / "folder").mkdir()
    for name in ("clip.mp4", "other.mp4"):
        make_clip(folder / name, 8, sizes=((32, 32),))
    texts = {"file": "", "empty.txt": "", "array.json": "[1]", "broken.json": "{",
             "unknown.json": '{"bach_size": 2}', "wrong.json": '{"rho": 2}',
             "list.csv": "clip.mp4,a\nother.mp4,b\n", "broken.csv": "one column\n"}  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("verb", WRONG)
def test_what_is_typed_wrong_ends_with_exit_code_2_and_one_line_before_torch(verb, folder):
    own, others = ([" ".join(one.split()) for one in text.split("|")] for text in (WRONG[verb], ANY))
    others = [one for one in others if one not in own]
    lines = own + others[: max(8, 30 - len(own))]
    assert len(set(lines)) >= 30
    python = [sys.executable, "-W", "error::UserWarning"]
    answer = subprocess.run([*python, "-c", IN_ONE_PROCESS, verb], cwd=folder, input=json.dumps(lines),
                            capture_output=True, text=True)  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    for line, code, out, err, torch in json.loads(answer.stdout):
        good = code == 2 and not out and err.startswith("error: ") and err.count("\n") == 1 and not torch
        assert good, (verb, line, code, out, err, torch)
        named = any(part in err for part in re.findall(r"\w\w+", line) or [line]) or "Missing" in err
        assert named or line in (*UNNAMED, *others), (verb, line, err)  # of what was typed
    words = ["-m", "mede_core", *verb.split(), *shlex.split(lines[1])]
    real = subprocess.run([*python, *words], cwd=folder, capture_output=True, text=True)
    assert real.returncode == 2 and real.stderr.startswith("error: ") and real.stderr.count("\n") == 1, real


# ------------------------------------------------------------------------------------ verbs at work
def test_train_prints_the_run_and_evaluate_tests_it_without_training_again(tmp_path, capsys):
    runs = ["--runs", str(tmp_path / "runs")]
    assert main(["train", "--method", "open_mede", *TINY, *runs]) == 0
    run = capsys.readouterr().out.strip()
    assert run.startswith(str(tmp_path / "runs" / "meta-"))
    out = tmp_path / "results" / "mine.jsonl"
    assert main(["evaluate", "--method", "open_mede", *TINY, *runs, "--out", str(out)]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert {record["run"] for record in records} == {Path(run).name} and len(records) == 8
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 9 and f"{records[0]['value']:.2f}" in table[1]
    assert [path.name for path in (tmp_path / "runs").glob("meta-*")] == [Path(run).name]


def test_a_device_that_is_not_there_and_weights_that_are_not_here_end_in_one_line(tmp_path, capsys):
    for wrong in (["--device", "cuda:63"], ["--profile", "paper"], ["--weights", "absent"], ["--model", "ViT-Z"]):
        assert main(["train", *TINY, *wrong, "--runs", str(tmp_path)]) == 2, wrong
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and wrong[1] in error + "paper", wrong


def test_clean_lists_what_is_old_and_removes_it_only_when_told(tmp_path, capsys):
    old = tmp_path / "meta-000000000000"
    old.mkdir()
    (old / "metrics.jsonl").write_text("{}\n")
    (tmp_path / "scores").mkdir()
    assert main(["clean", "--runs", str(tmp_path)]) == 0
    assert "meta-000000000000: of an earlier naming" in capsys.readouterr().out and old.is_dir()
    assert main(["clean", "--runs", str(tmp_path), "--yes"]) == 0
    assert "1 old runs; removed" in capsys.readouterr().out
    assert not old.exists() and (tmp_path / "scores").is_dir()


def test_cost_prints_one_json_line(tmp_path, capsys):
    (tmp_path / "run.json").write_text(json.dumps({"batch_size": 2, "method": "froster"}))
    assert main(["cost", "--config", str(tmp_path / "run.json"), "--steps", "1", "--classes", "3"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    wanted = {"seconds_per_step", "clips_per_second_eval", "peak_bytes", "trainable_bytes", "device"}
    assert wanted <= json.loads(line).keys()


def test_evaluate_on_real_videos_says_how_the_protocol_departs_from_the_published_one(folder, tmp_path, capsys):
    out = tmp_path / "records.jsonl"
    data = ["--data", str(folder / "list.csv"), "--runs", str(tmp_path / "runs"), "--out", str(out)]
    assert main(["evaluate", "--method", "frozen", *data]) == 0
    shown = capsys.readouterr().out
    (record,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert record["set"] == "list" and record["n"] == 2 and "model=mede-small" in record["departs"]
    assert f"departs from the published protocol: {record['departs']}" in shown
