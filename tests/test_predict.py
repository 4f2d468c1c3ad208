"""The prediction command: ranked actions with the weights used; bad input is one line and exit code 2."""

import json
import subprocess
import sys

import pytest
import torch
from clips import make_clip, real_clips

from mede_core.attention import attention_maps
from mede_core.checkpoints import checkpoint_path, save_checkpoint
from mede_core.gwa import gaussian_weights
from mede_core.learner import build_learner
from mede_core.report.figures.clips import film_strip_attention
from mede_core.video.clips import VideoDataset, read_views
from mede_core.video.decode import probe
from mede_core.video.explain import save_explanation
from mede_core.video.manifest import read_manifest
from mede_core.video.predict import main, predict
from mede_core.video.prompts import load_prompts

CLASSES = ["a red star rising", "a blue ring falling", "a green cross growing"]
SMALL = ["--model", "mede-small", "--weights", "shipped"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("videos") / "my clip #1.mp4", 24, sizes=((96, 64),))


@pytest.fixture(scope="module")
def learner():
    return build_learner("mede-small", "shipped", adapter_width=0, trainable="visual")


def run(capsys, *arguments):
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse's own way out
        code = stop.code
    output = capsys.readouterr()
    return code, output.out, output.err


def test_probabilities_are_ranked_and_sum_to_one(clip, learner):
    ranked = predict(learner, clip, CLASSES)
    assert {name for name, _ in ranked} == set(CLASSES)
    values = [value for _, value in ranked]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1)
    assert len(set(values)) == 3


def test_the_order_of_the_classes_does_not_matter(clip, learner):
    assert dict(predict(learner, clip, CLASSES)) == pytest.approx(dict(predict(learner, clip, CLASSES[::-1])))


@pytest.mark.parametrize(("views", "sampling"), [(1, "uniform"), (3, "uniform"), (3, "dense")])
def test_a_prediction_is_what_an_evaluation_computes(clip, learner, tmp_path, views, sampling):
    (tmp_path / "l.csv").write_text(f'"{clip}","{CLASSES[0]}"\n')
    manifest = read_manifest(tmp_path / "l.csv", class_names=CLASSES)
    video = VideoDataset(manifest, 8, learner.image_size, sampling=sampling, views=views)[0][0]
    learner.set_classes(CLASSES)
    with torch.inference_mode():
        logits = learner(video.view(views, 8, *video.shape[-3:])).mean(0)
    expected = dict(zip(CLASSES, logits.softmax(0).tolist(), strict=True))
    assert dict(predict(learner, clip, CLASSES, views=views, sampling=sampling)) == pytest.approx(expected)


def test_predicting_leaves_the_mode_as_it_was(clip, learner):
    learner.train()
    predict(learner, clip, CLASSES)
    assert learner.training
    learner.eval()


def test_templates_reach_the_text_encoder(clip, learner):
    bare = dict(predict(learner, clip, CLASSES))
    assert bare != pytest.approx(dict(predict(learner, clip, CLASSES, templates=("blue blue {}",))), abs=1e-4)


def test_the_text_answer_ranks_and_names_the_weights(clip, learner, capsys):
    code, out, _ = run(capsys, "--video", clip, "--classes", *CLASSES, *SMALL, "--top-k", 2)
    assert code == 0
    assert learner.weights_id in out
    assert learner.weights_id.startswith("shipped:")
    assert "my clip #1.mp4" in out
    ranked = predict(learner, clip, CLASSES)
    lines = [line for line in out.splitlines() if line.strip()[:2] in ("1.", "2.", "3.")]
    assert [line.split("%")[1].strip() for line in lines] == [name for name, _ in ranked[:2]]
    assert [float(line.split()[1]) for line in lines] == pytest.approx([100 * p for _, p in ranked[:2]], abs=0.01)
    assert "RANDOM" not in out


def test_the_json_answer_holds_the_same(clip, learner, capsys, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    code, out, _ = run(capsys, "--video", clip, "--classes-file", tmp_path / "classes.txt", *SMALL, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["weights"] == learner.weights_id
    assert answer["random_weights"] is False
    assert answer["frames"] == 8
    found = [(item["class"], pytest.approx(item["probability"])) for item in answer["predictions"]]
    assert found == predict(learner, clip, CLASSES)


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_random_weights_are_marked_loudly(clip, capsys, form):
    code, out, _ = run(capsys, "--video", clip, "--classes", *CLASSES, *SMALL, "--random-weights", *form)
    assert code == 0
    assert "RANDOM WEIGHTS" in out
    if form:
        assert json.loads(out)["random_weights"] is True
        assert json.loads(out)["weights"] == "random"


def checkpoint(path, learner, random_weights=False, **facts):
    config = {
        "model": "mede-small",
        "weights": "shipped",
        "adapter_width": 4,
        "trainable": "adapters",
        "seed": 3,
    }
    config |= {"random_weights": random_weights, "num_frames": 4}
    tensors = learner.trainable_state()
    save_checkpoint(path, tensors, {"config": config, "weights": learner.weights_id, "classes": CLASSES[:2], **facts})
    return path


@pytest.fixture(scope="module")
def trained():
    """A learner whose adapters were moved, so that it differs from frozen CLIP."""
    learner = build_learner("mede-small", "shipped", adapter_width=4, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in learner.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return learner


def test_a_checkpoint_brings_its_own_recipe_and_classes(clip, trained, learner, capsys, tmp_path):
    path = checkpoint(tmp_path / "epoch_002.safetensors", trained)
    code, out, _ = run(capsys, "--video", clip, "--checkpoint", path, "--json")
    answer = json.loads(out)
    assert code == 0
    assert (answer["model"], answer["weights"], answer["frames"]) == ("mede-small", trained.weights_id, 4)
    found = [(item["class"], pytest.approx(item["probability"], abs=1e-5)) for item in answer["predictions"]]
    assert found == predict(trained, clip, CLASSES[:2], num_frames=4)
    assert found != predict(learner, clip, CLASSES[:2], num_frames=4)


def test_a_checkpoint_of_random_weights_stays_marked(clip, capsys, tmp_path):
    fresh = build_learner("mede-small", "shipped", adapter_width=4, seed=3, random_weights=True)
    path = checkpoint(tmp_path / "epoch_001.safetensors", fresh, random_weights=True)
    code, out, _ = run(capsys, "--video", clip, "--checkpoint", path)
    assert code == 0
    assert "RANDOM WEIGHTS" in out


def test_a_checkpoint_on_other_clip_weights_is_refused(clip, trained, capsys, tmp_path):
    path = checkpoint(tmp_path / "epoch_001.safetensors", trained, weights="shipped:0123456789ab")
    code, _, err = run(capsys, "--video", clip, "--checkpoint", path)
    assert code == 2
    assert "shipped:0123456789ab" in err
    code, _, err = run(capsys, "--video", clip, "--checkpoint", checkpoint(path, trained), "--random-weights")
    assert code == 2
    assert "random" in err


def test_a_checkpoint_that_does_not_fit_is_refused(clip, trained, capsys, tmp_path):
    tensors = dict(list(trained.trainable_state().items())[1:])
    config = {
        "model": "mede-small",
        "weights": "shipped",
        "adapter_width": 4,
        "trainable": "adapters",
        "seed": 3,
    }
    facts = {"config": config | {"random_weights": False}, "weights": trained.weights_id, "classes": CLASSES}
    save_checkpoint(tmp_path / "part.safetensors", tensors, facts)
    code, _, err = run(capsys, "--video", clip, "--checkpoint", tmp_path / "part.safetensors")
    assert code == 2
    assert "missing" in err


def run_folder(folder, method, **config):
    """A finished run of three epochs, its weights far from the identity; returns their tensors."""
    config = {"model": "mede-small", "weights": "shipped", "adapter_width": 4, "seed": 3, "epochs": 3, "num_frames": 4,
              "method": method, **config}  # fmt: skip
    learner = build_learner("mede-small", "shipped", adapter_width=4, seed=3)
    generator, epochs = torch.Generator().manual_seed(1), []
    for epoch in range(1, 4):
        epochs.append({
            name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator)
            for name, tensor in learner.trainable_state().items()
        })  # fmt: skip
        facts = {"config": config, "weights": learner.weights_id, "classes": CLASSES[:2], "epochs": [epoch]}
        save_checkpoint(checkpoint_path(folder, epoch), epochs[-1], facts | {"averaged": None})
    (folder / "done.json").write_text('{"epochs": 3}')
    return epochs


def with_weights(tensors):
    return build_learner("mede-small", "shipped", adapter_width=4, seed=3).load_trainable(tensors)


def mixed(epochs, shares):
    return {name: sum(share * epoch[name] for share, epoch in zip(shares, epochs, strict=True)) for name in epochs[0]}


@pytest.mark.parametrize("method", ["finetune", "open_mede_no_gwa", "open_mede", "open_vclip"])
def test_a_run_folder_stands_for_the_weights_its_method_is_evaluated_with(clip, capsys, tmp_path, method):
    epochs = run_folder(tmp_path / "run", method)
    if method == "open_mede":
        expected = mixed(epochs, gaussian_weights(3, 0.68 * 3, 0.45 * 3).tolist())
    elif method == "open_vclip":  # the mean of epochs 2 and 3, half way to the adapters' identity
        fresh = build_learner("mede-small", "shipped", adapter_width=4, seed=3).trainable_state()
        expected = mixed([*epochs, fresh], [0, 0.25, 0.25, 0.5])
    else:
        expected = epochs[2]
    code, out, _ = run(capsys, "--video", clip, "--checkpoint", tmp_path / "run", "--json")
    assert code == 0
    answer = json.loads(out)
    assert method in answer["trained"]
    found = [(item["class"], item["probability"]) for item in answer["predictions"]]
    wanted = predict(with_weights(expected), clip, CLASSES[:2], num_frames=4)
    assert [name for name, _ in found] == [name for name, _ in wanted]
    assert [value for _, value in found] == pytest.approx([value for _, value in wanted], abs=1e-4)
    others = [predict(with_weights(epoch), clip, CLASSES[:2], num_frames=4) for epoch in epochs[:2]]
    assert all(dict(other) != pytest.approx(dict(wanted), abs=1e-3) for other in others)


def test_a_run_folder_takes_an_open_class_list(clip, capsys, tmp_path):
    epochs = run_folder(tmp_path / "run", "finetune")
    asked = ("--video", clip, "--checkpoint", tmp_path / "run", "--classes", "juggling", "sleeping", "--json")
    code, out, _ = run(capsys, *asked, "--top-k", 1)
    predictions = json.loads(out)["predictions"]
    assert code == 0
    name, value = predict(with_weights(epochs[2]), clip, ["juggling", "sleeping"], num_frames=4)[0]
    assert predictions == [{"class": name, "probability": pytest.approx(value, abs=1e-5)}]


def test_an_unfinished_run_and_a_folder_of_something_else_are_refused(clip, capsys, tmp_path):
    run_folder(tmp_path / "run", "finetune")
    (tmp_path / "run" / "done.json").unlink()
    for folder in (tmp_path / "run", tmp_path):
        code, _, err = run(capsys, "--video", clip, "--checkpoint", folder)
        assert code == 2
        assert "done.json" in err and folder.name in err


def test_a_checkpoint_of_a_newer_version_is_refused(clip, trained, capsys, tmp_path):
    facts = {"config": {"warp": 9}, "weights": trained.weights_id, "classes": CLASSES}
    save_checkpoint(tmp_path / "new.safetensors", trained.trainable_state(), facts)
    code, _, err = run(capsys, "--video", clip, "--checkpoint", tmp_path / "new.safetensors")
    assert code == 2
    assert "warp" in err


def test_a_checkpoint_brings_its_reading_and_prompts_and_flags_go_first(clip, capsys, tmp_path):
    epochs = run_folder(tmp_path / "run", "finetune", views=3, sampling="dense", prompts="templates")
    learner = with_weights(epochs[2])
    asked = ("--video", clip, "--checkpoint", tmp_path / "run", "--json")
    answer = json.loads(run(capsys, *asked)[1])
    assert (answer["views"], answer["sampling"], answer["prompts"]) == (3, "dense", "28 templates")
    wanted = predict(
        learner, clip, CLASSES[:2], num_frames=4, views=3, sampling="dense", prompts=load_prompts("templates")
    )
    found = {item["class"]: item["probability"] for item in answer["predictions"]}
    assert found == pytest.approx(dict(wanted), abs=1e-5)
    answer = json.loads(run(capsys, *asked, "--views", 1, "--sampling", "uniform", "--prompts", "{}")[1])
    assert (answer["views"], answer["sampling"], answer["prompts"]) == (1, "uniform", "name")
    found = {item["class"]: item["probability"] for item in answer["predictions"]}
    assert found == pytest.approx(dict(predict(learner, clip, CLASSES[:2], num_frames=4)), abs=1e-5)


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_an_explanation_is_the_film_strip_of_the_frames_that_were_read(clip, learner, capsys, tmp_path, kind):
    file = tmp_path / "new folder" / f"why.{kind}"
    names = ("--classes", "wins $^$", "costs $_{$")  # no formulas
    code, out, _ = run(capsys, "--video", clip, *names, *SMALL, "--explain", file, "--frames", 4)
    assert code == 0
    assert str(file) in out
    data = file.read_bytes()
    assert data.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    assert (
        data.count({"png": b"IDAT", "svg": b"<image", "pdf": b"/Image"}[kind]) >= {"png": 1, "svg": 2, "pdf": 2}[kind]
    )
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_an_explanation_shows_the_last_blocks_attention_to_these_frames(clip, learner, monkeypatch, tmp_path):
    shown = {}

    def keep(video, attention, mask=None, title=""):
        shown.update(video=video, attention=attention, title=title)
        return film_strip_attention(video, attention, mask, title)

    monkeypatch.setattr("mede_core.report.figures.clips.film_strip_attention", keep)
    learner.train()
    save_explanation(tmp_path / "why.png", learner, clip, "a title", num_frames=4)
    assert learner.training
    learner.eval()
    frames = read_views(clip, probe(clip), num_frames=4, image_size=learner.image_size, sampling="uniform", views=1)
    assert (shown["video"] == frames[0].numpy()).all()
    assert shown["attention"] == pytest.approx(attention_maps(learner, frames)[0].numpy(), abs=1e-6)
    assert shown["attention"].sum((1, 2)) == pytest.approx(1)
    assert shown["title"] == "a title"


def test_an_explanation_of_random_weights_is_marked(clip, capsys, monkeypatch, tmp_path):
    titles = []
    monkeypatch.setattr("mede_core.video.explain.save_explanation", lambda *args, **_: titles.append(args[3]))
    asked = ("--video", clip, "--classes", "a", "b", *SMALL, "--explain", tmp_path / "why.png")
    run(capsys, *asked, "--random-weights")
    run(capsys, *asked)
    assert [title.startswith("RANDOM WEIGHTS") for title in titles] == [True, False]


def test_without_an_explanation_no_plot_library_is_loaded():
    code = "import sys, mede_core.video.predict, mede_core.video.explain\nprint({'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def bad_input(folder, clip):
    """{name: (arguments, words that the error must hold)}."""
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no video\n" * 100)
    (folder / "twice.txt").write_text("a\nb\na\n")
    (folder / "junk.safetensors").write_bytes(b"junk" * 100)
    (folder / "junk.pt").write_bytes(b"junk" * 100)
    tiny = ("--model", "ViT-S-32-alt")
    make_clip(folder / "sound.mp4", sizes=(), audio=True)
    video, two = ("--video", clip), ("--classes", "a", "b")
    return {
        "no video given": (two, ["--video"]),
        "missing video": (("--video", folder / "gone.mp4", *two, *SMALL), ["gone.mp4", "no such file"]),
        "empty video": (("--video", folder / "empty.mp4", *two, *SMALL), ["empty.mp4", "empty"]),
        "no video inside": (("--video", folder / "text.mp4", *two, *SMALL), ["text.mp4"]),
        "sound only": (("--video", folder / "sound.mp4", *two, *SMALL), ["sound.mp4", "no video stream"]),
        "folder": (("--video", folder, *two, *SMALL), ["folder"]),
        "no classes": ((*video, *SMALL), ["--classes", "--classes-file"]),
        "duplicates": ((*video, "--classes", "a", "b", "a", *SMALL), ["duplicates", "'a'"]),
        "duplicates in the file": (
            (*video, "--classes-file", folder / "twice.txt", *SMALL),
            ["duplicates", "'a'"],
        ),
        "no classes file": ((*video, "--classes-file", folder / "gone.txt", *SMALL), ["gone.txt"]),
        "empty class": ((*video, "--classes", "a", " ", *SMALL), ["empty"]),
        "top-k": ((*video, *two, *SMALL, "--top-k", 0), ["--top-k is 0"]),
        "frames": ((*video, *two, *SMALL, "--frames", -1), ["--frames is -1"]),
        "views": ((*video, *two, *SMALL, "--views", 0), ["--views is 0"]),
        "no number": ((*video, *two, *SMALL, "--frames", "many"), ["--frames", "many"]),
        "prompt without braces": ((*video, *two, *SMALL, "--prompts", "a video"), ["prompts", "'a video'"]),
        "prompt with a name": ((*video, *two, *SMALL, "--prompts", "{} {x}"), ["prompts"]),
        "unknown model": ((*video, *two, "--model", "ViT-X"), ["ViT-X"]),
        "unknown tag": ((*video, *two, "--weights", "nope"), ["nope", "openai"]),
        "weights not to be had": ((*video, *two, "--weights", "dfn2b"), ["dfn2b", "--weights FILE"]),
        "no such weights file": ((*video, *two, "--weights", folder / "gone.pt"), ["gone.pt"]),
        "broken weights": (
            (*video, *two, *tiny, "--weights", folder / "junk.safetensors"),
            ["junk.safetensors"],
        ),
        "broken pickle": ((*video, *two, *tiny, "--weights", folder / "junk.pt"), ["junk.pt"]),
        "plain openai": ((*video, *two, "--model", "ViT-B-32", "--weights", "openai"), ["quickgelu"]),
        "broken checkpoint": ((*video, *two, "--checkpoint", folder / "junk.safetensors"), ["checkpoint"]),
        "explanation": ((*video, *two, *SMALL, "--explain", folder / "why.gif"), ["--explain", "why.gif", ".png"]),
        "prompt set": ((*video, *two, *SMALL, "--prompts", folder / "gone.json"), ["prompts", "gone.json"]),
        "device": ((*video, *two, *SMALL, "--device", "abacus"), ["--device", "abacus"]),
    }


BAD_INPUT = [
    "no video given",
    "missing video",
    "empty video",
    "no video inside",
    "sound only",
    "folder",
    "no classes",
    "duplicates",
    "duplicates in the file",
    "no classes file",
    "empty class",
    "top-k",
    "frames",
    "views",
    "no number",
    "prompt without braces",
    "prompt with a name",
    "unknown model",
    "unknown tag",
    "weights not to be had",
    "no such weights file",
    "broken weights",
    "broken pickle",
    "plain openai",
    "broken checkpoint",
    "explanation",
    "prompt set",
    "device",
]


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_2(clip, capsys, monkeypatch, tmp_path, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # nothing was downloaded
    cases = bad_input(tmp_path, clip)
    assert cases.keys() == set(BAD_INPUT)
    arguments, words = cases[name]
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in err
    for word in words:
        assert word in lines[0]


def test_the_command_says_no_before_it_loads_torch():
    command = [sys.executable, "-X", "importtime", "-m", "mede_core.video.predict", "--video", "gone.mp4"]
    done = subprocess.run([*command, "--classes", "a", "b"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    loaded = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    assert "av" in loaded
    assert "torch" not in loaded
    said = [line for line in lines if not line.startswith("import time:")]
    assert said == ["error: video 'gone.mp4' cannot be read: no such file"]


@pytest.mark.parametrize("name", ["arm_wrestling.mp4", "apply_eye_makeup.avi", "edge_cases/tc_av1_video.mkv"])
def test_real_clips_are_ranked(capsys, name):
    video = real_clips() / name
    code, out, _ = run(capsys, "--video", video, "--classes", "arm wrestling", "applying makeup", *SMALL, "--json")
    assert code == 0
    assert sum(item["probability"] for item in json.loads(out)["predictions"]) == pytest.approx(1)
