"""The learner equals frozen CLIP at the start, trains only what it should, and loads strictly."""

import copy
import json
import shutil
import subprocess
import sys

import open_clip
import pytest
import torch
import torch.nn.functional as F

from mede_core.adapters import STAdapterBlock
from mede_core.checkpoints import load_checkpoint, save_checkpoint
from mede_core.learner import build_learner
from mede_core.weights import SMALL_CLIP, weights_hash


def small_clip():
    cfg = json.loads((SMALL_CLIP / "open_clip_config.json").read_text())
    clip = open_clip.CLIP(**cfg["model_cfg"])
    open_clip.load_checkpoint(clip, str(SMALL_CLIP / "open_clip_model.safetensors"), strict=True)
    return clip.eval(), cfg


@pytest.fixture
def video():
    return torch.randint(0, 256, (3, 8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def perturb(learner, scale=0.1):
    generator = torch.Generator().manual_seed(1)
    state = {k: torch.randn(v.shape, generator=generator) * scale for k, v in learner.trainable_state().items()}
    return learner.load_trainable(state)


def test_a_fresh_learner_equals_frozen_clip_exactly(video):
    learner = build_learner()
    clip, cfg = small_clip()
    mean, std = (torch.tensor(cfg["preprocess_cfg"][k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        frames = F.normalize(clip.encode_image((video.flatten(0, 1).float() / 255 - mean) / std), dim=-1)
        assert torch.equal(learner.encode(video).flatten(0, 1), frames)


def test_logits_are_the_mean_over_frames_of_clip_logits(video):
    learner = build_learner().set_classes(["a red star rising", "a blue ball falling", "a green ring"])
    clip, _ = small_clip()
    tokenizer = open_clip.SimpleTokenizer(str(SMALL_CLIP / "bpe.txt.gz"), context_length=16)
    with torch.no_grad():
        texts = F.normalize(clip.encode_text(tokenizer(learner.class_names)), dim=-1)
        per_frame = clip.logit_scale.exp() * learner.encode(video) @ texts.T  # [B, T, K]
        torch.testing.assert_close(learner(video), per_frame.mean(1), rtol=1e-5, atol=1e-5)


def test_prompt_templates_are_averaged_and_normalized():
    learner = build_learner()
    one = [learner.set_classes(["a red star"], (t,)).text_features for t in ("{}", "a photo of {}")]
    both = learner.set_classes(["a red star"], ("{}", "a photo of {}")).text_features
    torch.testing.assert_close(both, F.normalize((one[0] + one[1]) / 2, dim=-1))


def test_class_texts_are_encoded_once(monkeypatch):
    learner = build_learner().set_classes(["a red star", "a blue ball"])
    monkeypatch.setattr(learner._text[0], "encode_text", lambda *_: pytest.fail("encoded again"))
    learner.set_classes(["a blue ball"])
    assert learner.class_names == ["a blue ball"] and learner.text_features.shape == (1, 64)


def test_only_adapters_receive_gradients(video):
    learner = build_learner().set_classes(["a red star rising", "a red star falling"])
    learner(video).sum().backward()
    with_gradient = {name for name, p in learner.named_parameters() if p.grad is not None}
    assert with_gradient == set(learner.trainable_state())
    assert all(".adapter." in name for name in with_gradient) and len(learner.temporal) == 4


def test_visual_trains_the_whole_encoder_and_nothing_else():
    names = set(build_learner(trainable="visual").trainable_state())
    assert {"visual.conv1.weight", "visual.proj", "visual.transformer.resblocks.0.adapter.up.weight"} <= names
    assert all(name.startswith("visual.") for name in names)


def test_a_deep_copy_is_independent(video):
    learner = perturb(build_learner())
    twin = copy.deepcopy(learner)
    assert all(isinstance(block, STAdapterBlock) for block in twin.visual.transformer.resblocks)
    before = learner.encode(video)
    perturb(twin, scale=0.5)
    assert torch.equal(learner.encode(video), before) and not torch.equal(twin.encode(video), before)


def test_open_clip_itself_is_not_patched():
    build_learner()
    assert "adapter" not in dict(small_clip()[0].visual.transformer.resblocks[0].named_children())


def test_a_partial_checkpoint_is_refused_and_says_what_differs():
    learner = build_learner()
    state = dict(learner.trainable_state())
    name = next(iter(state))
    tensor = state.pop(name)
    with pytest.raises(ValueError, match=f"missing {name}.*unknown module.{name}"):
        learner.load_trainable({**state, f"module.{name}": tensor})
    with pytest.raises(ValueError, match="expected"):
        learner.load_trainable({**state, name: tensor[..., :1]})


def test_a_truncated_checkpoint_is_a_clear_error(tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, build_learner().trainable_state(), {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "ViT-B-16", "weights": "openai"}, "ViT-B-16-quickgelu"),
        ({"model": "ViT-B-99"}, "unknown to open_clip"),
        ({"model": "ViT-B-16", "weights": "nonsense"}, "neither a local file nor a tag"),
        ({"model": "ViT-B-16"}, "--weights"),
        ({"model": "ViT-B-16-quickgelu", "weights": "openai"}, "--weights FILE"),
        ({"weights": "/nowhere"}, "missing in /nowhere"),
        ({"trainable": "text"}, "allowed: adapters, visual"),
        ({"adapter_width": 0}, "would train nothing"),
        ({"model": "RN50", "random_weights": True}, "frozen only"),
    ],
)
def test_wrong_weights_or_models_are_refused_by_name(arguments, message, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # nothing was fetched
    with pytest.raises(ValueError, match=message):
        build_learner(**arguments)


def test_weights_are_identified_without_building_a_model(tmp_path):
    shutil.copytree(SMALL_CLIP, tmp_path / "clip")
    for weights in ("shipped", str(tmp_path / "clip")):
        assert weights_hash("mede-small", weights) == build_learner(weights=weights).weights_id
    shipped, copied = (weights_hash("mede-small", one).split(":") for one in ("shipped", str(tmp_path / "clip")))
    assert (shipped[0], copied[0]) == ("shipped", "file") and shipped[1] == copied[1]
    with (tmp_path / "clip" / "open_clip_model.safetensors").open("ab") as file:
        file.write(b"other weights")
    assert weights_hash("mede-small", str(tmp_path / "clip")).split(":")[1] != copied[1]
    assert weights_hash("ViT-B-16", str(SMALL_CLIP / "open_clip_model.safetensors")) == f"file:{shipped[1]}"
    assert weights_hash("ViT-B-16-quickgelu", "openai") == "openai"
    assert weights_hash("ViT-B-16", "shipped", random_weights=True) == "random"
    code = "import sys; from mede_core import weights; weights.weights_hash('mede-small', 'shipped')"
    subprocess.run([sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"], check=True)


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a", " "]])
def test_class_names_must_be_unique_and_non_empty(names):
    with pytest.raises(ValueError, match="class names"):
        build_learner().set_classes(names)


def test_wrong_video_shapes_are_named():
    with pytest.raises(ValueError, match=r"\[B, T, 3, 32, 32\]"):
        build_learner().encode(torch.zeros(1, 8, 3, 64, 64))
    with pytest.raises(RuntimeError, match="set_classes"):
        build_learner()(torch.zeros(1, 8, 3, 32, 32))
