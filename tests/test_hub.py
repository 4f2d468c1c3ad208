"""Weights from a hub, here a server on the loopback: fetched once, compared, resumed, or refused in one line."""

import hashlib
import json
import logging
import os
import socket

import open_clip
import pytest
import torch
from clips import make_clip
from huggingface_hub import constants
from safetensors.torch import save_file

from mede_core import weights as weights_module
from mede_core.__main__ import main
from mede_core.weights import build_clip, cached_weights

FILE = "open_clip_model.safetensors"
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def tiny_state():
    torch.manual_seed(0)
    return open_clip.CLIP(**TINY).state_dict()


@pytest.fixture
def hub(tmp_path, monkeypatch, tiny_state, server):
    """A hub with the weights of an architecture `tiny`, whose tag is `tag`; and an empty cache."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", TINY)
    monkeypatch.setattr(weights_module, "model_files", lambda: {"tiny": tmp_path / "tiny.json"})
    tags = {"tag": {"hf_hub": "owner/tiny/", "mean": (0.5, 0.5, 0.5)}, "quick": {"hf_hub": "o/q/", "quick_gelu": True}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", tags)
    save_file(tiny_state, tmp_path / FILE)
    server.files[f"owner/tiny/{FILE}"] = (tmp_path / FILE).read_bytes()
    return server


def same(clip, state):
    return all(torch.equal(tensor, state[name]) for name, tensor in clip.state_dict().items())


def test_the_first_use_fetches_says_how_much_and_the_second_takes_the_cache(hub, tiny_state, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    assert cached_weights("tiny", "tag") is None
    clip, _, name = build_clip("tiny", "tag")
    assert same(clip, tiny_state) and name == "tag" and clip.visual.preprocess_cfg["mean"] == (0.5, 0.5, 0.5)
    size = len(hub.files[f"owner/tiny/{FILE}"])
    assert f"fetching owner/tiny/{FILE}, {size / 1e6:,.1f} MB" in caplog.text
    assert hub.gets == [(FILE, 0)] and cached_weights("tiny", "tag").stat().st_size == size
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(build_clip("tiny", "tag")[0], tiny_state) and len(hub.gets) == 1


def test_a_name_of_the_hub_brings_its_pictures_and_must_fit_the_activation(hub, tiny_state):
    hub.files[f"me/mine/{FILE}"] = hub.files[f"owner/tiny/{FILE}"]
    said = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.25, 0.5, 0.75]}}
    hub.files["me/mine/open_clip_config.json"] = json.dumps(said).encode()
    clip, _, name = build_clip("tiny", "hf-hub:me/mine")
    assert same(clip, tiny_state) and list(clip.visual.preprocess_cfg["mean"]) == [0.25, 0.5, 0.75]
    assert name == "hf-hub:me/mine"
    said["model_cfg"] = {**TINY, "quick_gelu": True}
    hub.files["you/yours/open_clip_config.json"] = json.dumps(said).encode()
    for weights in ("hf-hub:you/yours", "quick"):
        with pytest.raises(ValueError, match="with QuickGELU: use model tiny-quickgelu"):
            build_clip("tiny", weights)


def test_a_cut_transfer_goes_on_where_it_was_or_leaves_nothing(hub, tiny_state, monkeypatch, tmp_path):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.cuts = 99
    with pytest.raises(ValueError, match="weights 'tag' are not on this machine, and .* run it again"):
        build_clip("tiny", "tag")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and "blobs" in path.parts]
    hub.cuts, hub.gets = 1, []
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 2**16)  # what is kept of a transfer comes in such pieces
    assert same(build_clip("tiny", "tag")[0], tiny_state)
    assert [start > 0 for _, start in hub.gets] == [False, True]


def test_a_file_with_another_hash_than_the_hub_states_is_refused_and_removed(hub, tiny_state):
    hub.stated = "f" * 64
    with pytest.raises(ValueError, match="the hub states f{64}; it was removed"):
        build_clip("tiny", "tag")
    assert cached_weights("tiny", "tag") is None
    hub.stated = None
    assert same(build_clip("tiny", "tag")[0], tiny_state)


def test_what_cannot_be_fetched_ends_in_one_line_that_says_what_to_do(hub, monkeypatch):
    said = {}
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes the call and never answers
        silent_url = f"http://127.0.0.1:{silent.getsockname()[1]}/{{repo_id}}/{{revision}}/{{filename}}"
        for case, name, value in (
            ("has no open_clip_model.safetensors or open_clip_pytorch_model.bin", "ENDPOINT", constants.ENDPOINT),
            ("no answer within 0.2 s", "HUGGINGFACE_CO_URL_TEMPLATE", silent_url),
            ("ConnectError", "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:1/{repo_id}/{revision}/{filename}"),
            ("this is offline (--offline", "HF_HUB_OFFLINE", True),
        ):
            monkeypatch.setattr(weights_module, "WAIT_S", 0.2 if case.endswith("0.2 s") else 60)
            monkeypatch.setattr(constants, name, value)
            hub.files.clear()
            with pytest.raises(ValueError, match=r"'tag' are not on this machine, and .*--weights FILE") as error:
                build_clip("tiny", "tag")
            said[case] = str(error.value)
    assert all(case in line and "\n" not in line for case, line in said.items()), said


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:.*TorchScript archive:UserWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_an_archive_that_runs_code_is_loaded_only_if_open_clips_table_holds_it(hub, tiny_state, tmp_path, monkeypatch):
    clip, file = open_clip.CLIP(**TINY), tmp_path / "archive.pt"
    clip.load_state_dict(tiny_state)
    clip.attn_mask = None  # an archive keeps every buffer
    inputs = torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=int)
    torch.jit.trace(clip.eval(), inputs, check_trace=False).save(str(file))
    with pytest.raises(ValueError, match="TorchScript archive, which runs code"):
        build_clip("tiny", str(file))
    url = f"https://openaipublic.azureedge.net/clip/models/{hashlib.sha256(file.read_bytes()).hexdigest()}/archive.pt"
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["tiny"], "openai", {"url": url})
    assert same(build_clip("tiny", str(file))[0], tiny_state)


def test_one_command_from_an_empty_cache_to_ranked_actions_of_kinetics(hub, tmp_path, capsys, monkeypatch):
    clip = make_clip(tmp_path / "clip.mp4", 12, sizes=((48, 32),))
    asked = ["predict", str(clip), "--model", "tiny", "--weights", "tag", "--classes", "kinetics400"]
    assert main(asked) == 0 and len(hub.gets) == 1
    assert sum("%" in line for line in capsys.readouterr().out.splitlines()) == 5
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert main([*asked, "--offline", "--top-k", "400"]) == 0 and len(hub.gets) == 1
    assert sum("%" in line for line in capsys.readouterr().out.splitlines()) == 400
    assert os.environ["HF_HUB_OFFLINE"] == "1"
