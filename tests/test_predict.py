"""The prediction command: ranked actions with the weights used; bad input is one line and exit code 2."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from clips import make_clip

from mede_core.__main__ import main
from mede_core.attention import attention_maps
from mede_core.checkpoints import checkpoint_path, save_checkpoint
from mede_core.gwa import gaussian_weights
from mede_core.learner import build_learner
from mede_core.report.figures.film import film_strip_attention
from mede_core.scoring import evaluate
from mede_core.video import predict as predict_module
from mede_core.video.classes import load_prompts
from mede_core.video.clips import VideoDataset, center_views, read_views, uniform_indices
from mede_core.video.decode import probe, read_clip
from mede_core.video.manifest import Manifest
from mede_core.video.predict import answer, as_text, save_explanation
from mede_core.weights import weights_hash

CLASSES = ["a red star rising", "a blue ring falling", "a green cross growing"]
SMALL = {"model": "mede-small", "weights": "shipped"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("videos") / "my clip #1.mp4", 24, sizes=((96, 64),))


@pytest.fixture(scope="module")
def learner():
    return build_learner("mede-small", "shipped", adapter_width=0, trainable="visual")


def ranked(learner, clip, names, *, num_frames=8, views=1, sampling="uniform", prompts="name"):
    """[(class, probability)] of a clip as an evaluation computes them, most probable first."""
    clips = VideoDataset(Manifest([clip], [0], names, clip), num_frames, learner.image_size, sampling, views)
    logits = torch.from_numpy(evaluate(learner, clips, texts=load_prompts(prompts).texts(names)).logits[0])
    return sorted(zip(names, logits.softmax(0).tolist(), strict=True), key=lambda pair: -pair[1])


def ask(clip, **options):
    """The one answer on one video."""
    (found,) = answer([clip], **options)
    return found


def predictions(found):
    return [(item["class"], item["probability"]) for item in found["predictions"]]


def close(ranked):
    return [(name, pytest.approx(value, abs=1e-5)) for name, value in ranked]


def test_the_answer_ranks_and_names_the_weights_as_json_and_as_text(clip, learner, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    found = ask(clip, classes_file=str(tmp_path / "classes.txt"), **SMALL, top_k=2)
    assert json.loads(json.dumps(found)) == found
    assert (found["weights"], found["random_weights"], found["frames"]) == (learner.weights_id, False, 8)
    assert predictions(found) == close(ranked(learner, clip, CLASSES)[:2])
    out = as_text([found])
    assert learner.weights_id in out and learner.weights_id.startswith("shipped:") and "my clip #1.mp4" in out
    for rank, (name, value) in enumerate(predictions(found), 1):
        assert f"{rank}. {100 * value:6.2f} %  {name}" in out
    assert "3." not in out.split("\n\n")[-1] and "RANDOM" not in out


def test_commas_between_words_of_a_shell_are_no_part_of_a_class(clip):
    ranked = ask(str(clip), classes=["archery,", "jump, high;", "run"], **SMALL)["predictions"]
    assert {item["class"] for item in ranked} == {"archery", "jump, high", "run"}


RECIPE = {"model": "mede-small", "weights": "shipped", "adapter_width": 4, "trainable": "adapters", "seed": 3}


def checkpoint(path, tensors, **facts):
    """A checkpoint as a training writes it, of a configuration with four frames and its two classes."""
    about = {"weights": weights_hash("mede-small", "shipped"), "classes": CLASSES[:2], "averaged": None}
    save_checkpoint(path, tensors, {"config": {**RECIPE, "num_frames": 4}, **about, **facts})
    return str(path)


def test_a_checkpoint_of_random_weights_stays_marked(clip, tmp_path):
    fresh = build_learner("mede-small", "shipped", adapter_width=4, seed=3, random_weights=True)
    about = {"config": {**RECIPE, "random_weights": True}, "weights": "random"}
    path = checkpoint(tmp_path / "epoch_001.safetensors", fresh.trainable_state(), **about)
    assert "RANDOM WEIGHTS" in as_text(answer([clip], checkpoint=path))


def test_a_checkpoint_that_does_not_fit_is_refused(clip, tmp_path):
    path, (tensors, *_) = tmp_path / "epoch_001.safetensors", run_folder(tmp_path / "run", "finetune")
    for facts, options, words in (
        ({"weights": "shipped:0123456789ab"}, {}, "shipped:0123456789ab"),
        ({}, {"random_weights": True}, "random"),
        ({"tensors": dict([*tensors.items()][1:])}, {}, "missing"),
        ({"config": {"warp": 9}}, {}, "warp"),  # of a newer version
    ):
        with pytest.raises(ValueError, match=words):
            ask(clip, checkpoint=checkpoint(path, **{"tensors": tensors, **facts}), **options)


def run_folder(folder, method, **config):
    """A finished run of three epochs, its weights far from the identity; returns their tensors."""
    config = {**RECIPE, "epochs": 3, "num_frames": 4, "method": method, **config}
    fresh = build_learner("mede-small", "shipped", adapter_width=4, seed=3).trainable_state()
    generator, epochs = torch.Generator().manual_seed(1), []
    for epoch in range(1, 4):
        epochs.append({name: of + 0.3 * torch.randn(of.shape, generator=generator) for name, of in fresh.items()})
        checkpoint(checkpoint_path(folder, epoch), epochs[-1], config=config, epochs=[epoch])
    (folder / "done.json").write_text('{"epochs": 3}')
    return epochs


def with_weights(tensors):
    return build_learner("mede-small", "shipped", adapter_width=4, seed=3).load_trainable(tensors)


def mixed(epochs, shares):
    return {name: sum(share * epoch[name] for share, epoch in zip(shares, epochs, strict=True)) for name in epochs[0]}


@pytest.mark.parametrize("method", ["finetune", "open_mede_no_gwa", "open_mede", "open_vclip"])
def test_a_run_folder_stands_for_the_weights_its_method_is_evaluated_with(clip, tmp_path, method):
    epochs = run_folder(tmp_path / "run", method)
    if method == "open_mede":
        expected = mixed(epochs, gaussian_weights(3, 0.68 * 3, 0.45 * 3).tolist())
    elif method == "open_vclip":  # the mean of epochs 2 and 3, half way to the adapters' identity
        fresh = build_learner("mede-small", "shipped", adapter_width=4, seed=3).trainable_state()
        expected = mixed([*epochs, fresh], [0, 0.25, 0.25, 0.5])
    else:
        expected = epochs[2]
    found = ask(clip, checkpoint=str(tmp_path / "run"))
    assert method in found["trained"]
    wanted = ranked(with_weights(expected), clip, CLASSES[:2], num_frames=4)
    assert dict(predictions(found)) == pytest.approx(dict(wanted), abs=1e-4)
    others = [ranked(with_weights(epoch), clip, CLASSES[:2], num_frames=4) for epoch in epochs[:2]]
    assert all(dict(other) != pytest.approx(dict(wanted), abs=1e-3) for other in others)


def test_a_folder_of_epochs_or_of_runs_gives_an_answer_each_and_any_other_is_refused(clip, tmp_path):
    epochs = run_folder(tmp_path / "run", "finetune")
    whole = predictions(ask(clip, checkpoint=str(tmp_path / "run")))
    found = answer([clip], checkpoint=str(tmp_path))
    assert [predictions(one) for one in found] == [close(whole)]
    (tmp_path / "run" / "done.json").unlink()
    found = answer([clip], checkpoint=str(tmp_path / "run"))
    assert [Path(one["checkpoint"]).stem for one in found] == ["epoch_001", "epoch_002", "epoch_003"]
    about = [(one["model"], one["weights"], one["frames"]) for one in found]
    assert about == [("mede-small", weights_hash("mede-small", "shipped"), 4)] * 3
    wanted = [ranked(with_weights(epoch), clip, CLASSES[:2], num_frames=4) for epoch in epochs]
    assert [predictions(one) for one in found] == [close(ranked) for ranked in wanted]
    with pytest.raises(ValueError, match=r"done\.json"):
        ask(clip, checkpoint=str(tmp_path))


def test_folders_and_patterns_mean_their_videos_and_a_bad_one_stops_no_other(clip, tmp_path, capsys):
    for name in ("b.mp4", "in/a.mp4", "in/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(clip.read_bytes() if name.endswith("mp4") else b"")
    (tmp_path / "in" / "c.mp4").write_text("no video")
    given = [str(tmp_path / "in"), str(tmp_path / "*.mp4"), str(tmp_path / "b.mp4"), "--classes", *CLASSES]
    assert main(["predict", *given, "--weights", "shipped", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [Path(one["video"]).name for one in found] == ["a.mp4", "c.mp4", "b.mp4"]
    assert "error" in found[1] and found[0]["predictions"] == found[2]["predictions"]
    starts = [line.split(" ")[0] for line in as_text(found).splitlines()]
    assert (starts.count("weights"), starts.count("video")) == (1, 3)


def test_windows_name_each_part_of_the_video_with_its_seconds(clip, learner):
    found = ask(clip, classes=CLASSES, **SMALL, windows=3, frames=4)["windows"]
    seconds = [one[name] for one in found for name in ("start", "end")]
    assert seconds == pytest.approx([0, 0.8, 0.8, 1.6, 1.6, 2.4])
    info = probe(clip)
    for one, chosen in zip(found, uniform_indices(24, 12).reshape(3, 4), strict=True):
        frames = center_views(read_clip(clip, chosen, info=info), learner.image_size, 1)
        assert len(set(chosen // 8)) == 1  # of one third of the video
        learner.set_classes(CLASSES)
        with torch.inference_mode():
            value, best = learner(frames)[0].softmax(0).max(0)
        assert (one["class"], one["probability"]) == (CLASSES[best], pytest.approx(value.item(), abs=1e-5))


class Ordered(torch.nn.Module):
    """Says "up" where the first frame is darker than the last, "down" where lighter, and "none" where alike."""

    def forward(self, clip):
        step = (clip[:, -1].float() - clip[:, 0].float()).mean((1, 2, 3))
        return torch.stack([step, -step, torch.full_like(step, 0.5)], 1)


def test_the_order_test_says_whether_the_answer_would_change():
    rising = torch.arange(8).view(1, 8, 1, 1, 1).expand(2, 8, 3, 4, 4).to(torch.uint8)
    found = {one["order"]: one for one in predict_module.order_test(Ordered(), rising, ["up", "down", "none"])}
    assert [(name, found[name]["class"], found[name]["changed"]) for name in ("reversed", "one frame")] == [
        ("reversed", "down", True), ("one frame", "none", True),
    ]  # fmt: skip
    still = predict_module.order_test(Ordered(), rising * 0, ["up", "down", "none"])
    assert [(one["class"], one["changed"]) for one in still] == [("none", False)] * 3
    assert found["reversed"]["before"] < 0.01 and still[0]["before"] == still[0]["probability"]


def test_a_terminal_shows_bars_of_its_width_and_a_pipe_plain_lines(clip):
    found = ask(clip, classes=CLASSES, **SMALL, windows=2, order_test=True)
    plain, wide = as_text([found]), as_text([found], 100)
    assert "\u2588" not in plain and plain.isascii()
    bars = [line for line in wide.splitlines() if "\u2588" in line]
    assert len(bars) == 5 and max(map(len, bars)) <= 100
    (first, second) = (line.count("\u2588") for line in bars[:2])
    shares = [value for _, value in predictions(found)[:2]]
    assert first / second == pytest.approx(shares[0] / shares[1], rel=0.2)
    for words in ("over time", "in another order", "reversed", "shuffled", "one frame", "0.00 to    1.20 s"):
        assert words in plain


def test_a_checkpoint_brings_its_reading_and_prompts_and_flags_go_first(clip, tmp_path):
    epochs = run_folder(tmp_path / "run", "finetune", views=3, sampling="dense", prompts="templates")
    learner, run = with_weights(epochs[2]), str(tmp_path / "run")
    found = ask(clip, checkpoint=run)
    assert (found["views"], found["sampling"], found["prompts"]) == (3, "dense", "28 templates")
    reading = {"num_frames": 4, "views": 3, "sampling": "dense", "prompts": "templates"}
    assert predictions(found) == close(ranked(learner, clip, CLASSES[:2], **reading))
    mine = ["juggling", "sleeping"]
    found = ask(clip, checkpoint=run, classes=mine, views=1, sampling="uniform", prompts=["{}"])
    assert (found["views"], found["sampling"], found["prompts"]) == (1, "uniform", "name")
    assert predictions(found) == close(ranked(learner, clip, mine, num_frames=4))


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_an_explanation_is_the_film_strip_of_the_frames_that_were_read(clip, tmp_path, kind):
    file = tmp_path / "new folder" / f"why.{kind}"
    names = ["wins $^$", "costs $_{$"]  # no formulas
    assert str(file) in as_text(answer([clip], classes=names, **SMALL, explain=str(file), frames=4))
    data = file.read_bytes()
    assert data.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind])
    pictures, least = {"png": (b"IDAT", 1), "svg": (b"<image", 2), "pdf": (b"/Image", 2)}[kind]
    assert data.count(pictures) >= least
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_an_explanation_shows_the_last_blocks_attention_to_these_frames(clip, learner, monkeypatch, tmp_path):
    shown = {}

    def keep(video, attention, mask=None, title=""):
        shown.update(video=video, attention=attention, title=title)
        return film_strip_attention(video, attention, mask, title)

    monkeypatch.setattr("mede_core.report.figures.film.film_strip_attention", keep)
    save_explanation(tmp_path / "why.png", learner, clip, "a title", num_frames=4, sampling="uniform")
    frames = read_views(clip, probe(clip), num_frames=4, image_size=learner.image_size, sampling="uniform", views=1)
    assert (shown["video"] == frames[0].numpy()).all()
    assert shown["attention"] == pytest.approx(attention_maps(learner, frames)[0].numpy(), abs=1e-6)
    assert shown["attention"].sum((1, 2)) == pytest.approx(1)
    assert shown["title"] == "a title"


def test_random_weights_are_marked_loudly_and_on_the_explanation(clip, monkeypatch, tmp_path):
    titles = []
    monkeypatch.setattr("mede_core.video.predict.save_explanation", lambda *args, **_: titles.append(args[3]))
    for random_weights in (True, False):
        found = ask(clip, classes=["a", "b"], **SMALL, explain=str(tmp_path / "w.png"), random_weights=random_weights)
        assert (found["random_weights"], "RANDOM WEIGHTS" in as_text([found])) == (random_weights,) * 2
        assert (found["weights"] == "random") == random_weights
    assert [title.startswith("RANDOM WEIGHTS") for title in titles] == [True, False]


WRONG = """sound.mp4 --classes a b -> sound.mp4, no video stream
{0} --windows 25 -> --windows, 25, 24 frames
{0} --classes-file twice.txt -> --classes-file, both
clip.mp4 --classes-file twice.txt -> duplicates, 'a'
clip.mp4 --classes archery,bowling,running -> one class, 'archery,bowling,running', quotes
{0} --model ViT-B-16-quickgelu --weights nope -> nope, openai
{0} --model ViT-B-16-quickgelu --weights dfn2b -> dfn2b, --weights FILE
{0} --weights gone.pt -> gone.pt
{0} --model ViT-S-32-alt --weights junk.safetensors -> junk.safetensors
{0} --model ViT-S-32-alt --weights junk.pt -> junk.pt
{0} --model ViT-B-32 --weights openai -> quickgelu
{0} --checkpoint junk.safetensors -> checkpoint""".format("clip.mp4 --classes a b")


def test_what_shows_late_is_one_line_and_exit_code_2(clip, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # nothing was downloaded
    monkeypatch.chdir(tmp_path)
    junk = {"twice.txt": "a\nb\na\n", "junk.pt": "junk" * 100, "junk.safetensors": "junk" * 100}
    for name, text in junk.items():
        Path(name).write_text(text)
    make_clip("sound.mp4", sizes=(), audio=True)
    Path("clip.mp4").symlink_to(clip)
    for line in WRONG.splitlines():
        typed, _, words = line.partition(" -> ")
        assert main(["predict", "--model", "mede-small", "--weights", "shipped", *shlex.split(typed)]) == 2, line
        out, err = capsys.readouterr()
        lines = [one for one in err.splitlines() if one.startswith("error: ")]
        assert out == "" and len(lines) == 1, (line, err)
        assert all(word in lines[0] for word in words.split(", ")), (line, err)
