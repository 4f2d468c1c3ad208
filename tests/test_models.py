"""What each open_clip model can do here is said from its configuration, before anything is built."""

import subprocess
import sys
import time
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.model import _build_vision_tower
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

from mede_core.config import load_config
from mede_core.learner import build_learner
from mede_core.runs import learner_for
from mede_core.weights import check_tokenizer, model_files, support

NAMES = sorted(open_clip.list_models())
FAMILIES = ("RN50", "coca_ViT-B-32", "EVA02-B-16", "convnext_tiny", "MobileCLIP-S1", "PE-Core-T-16-384", "ViTamin-S",
            "vit_medium_patch16_gap_256", "vit_relpos_medium_patch16_cls_224", "swin_base_patch4_window7_224",
            "MobileCLIP-B", "ViT-S-32")  # fmt: skip


def takes_adapters(name):
    """Built without memory: do the image tower's blocks take a temporal module?"""
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        vision = {**config["vision_cfg"], "timm_model_pretrained": False}
        tower = _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))
    blocks = tower.transformer.resblocks if isinstance(tower, VisionTransformer) else [None]
    return all(type(block) is ResidualAttentionBlock for block in blocks)


def test_every_model_has_a_verdict_of_one_line_that_names_it():
    assert sorted(model_files()) == NAMES
    for name in NAMES:
        fits = support(name)
        assert fits.said.startswith(f"{name}: ") and "\n" not in fits.said
        assert ("frozen only" in fits.said) != fits.adapters
        needs = open_clip.get_model_config(name)["text_cfg"]
        assert bool(fits.tokenizer) == bool(needs.get("hf_tokenizer_name") or needs.get("hf_model_name"))


@pytest.mark.parametrize("name", [*FAMILIES, "ViT-B-16-SigLIP"])
def test_the_verdict_on_a_family_is_what_building_it_shows(name):
    assert support(name).adapters == takes_adapters(name)


@pytest.mark.slow
def test_every_verdict_is_what_building_the_model_shows():
    assert {name: support(name).adapters for name in NAMES} == {name: takes_adapters(name) for name in NAMES}


@pytest.mark.parametrize(("name", "close"), [("vit-b-16", "ViT-B-16"), ("ViT-B/16", "ViT-B-16"), ("?", "ViT-L-14")])
def test_an_unknown_model_is_refused_with_names_that_are_close(name, close):
    with pytest.raises(ValueError, match=f"unknown to open_clip; for example: .*{close}"):
        support(name)


def test_a_model_without_blocks_for_adapters_is_refused_for_training_before_it_is_built():
    for make in (lambda: build_learner("RN50", "openai"), lambda: learner_for(load_config("paper", model="RN50"))):
        with pytest.raises(ValueError, match="RN50: frozen only, since its image tower is a ResNet"):
            make()


@pytest.mark.parametrize("name", [name for name in NAMES if support(name).tokenizer][::8])
def test_a_tokenizer_that_cannot_be_read_is_said_at_once(name):
    started = time.perf_counter()
    with pytest.raises(ValueError, match=f"model '{name}' reads texts with .* of a hub, by the package transformers"):
        check_tokenizer(name)
    assert time.perf_counter() - started < 2


RUN = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (8 * 2**30, 8 * 2**30))
import torch
from mede_core.config import load_config
from mede_core.runs import learner_for
learner = learner_for(load_config("paper", method="frozen", model=sys.argv[1], random_weights=True))
learner.set_classes(["archery", "bowling", "running"])
clip = torch.randint(0, 256, (2, 2, 3, learner.image_size, learner.image_size), dtype=torch.uint8)
with torch.inference_mode():
    logits = learner(clip)
assert logits.shape == (2, 3) and logits.isfinite().all(), logits
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_of_each_family_can_be_scored_as_frozen_clip(name, tmp_path):
    answer = subprocess.run([sys.executable, "-c", RUN, name], cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert not list(Path(tmp_path).iterdir())
