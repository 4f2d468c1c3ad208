"""data.yaml is checked whole before anything starts: every problem with its key, its value and what is allowed."""

import pytest
import yaml
from test_paper_profile import make_list

from mede_core.batch import PlanError
from mede_core.batch.data_yaml import DATASETS, read_data_yaml
from mede_core.files import repo_root


@pytest.fixture
def world(tmp_path):
    """A folder with two lists of videos (one prepared, one plain), a SCUBA list, and weights."""
    for name in ("lists", "places"):
        (tmp_path / name).mkdir()
    make_list(tmp_path / "lists", "ucf", ["train1 test2", "test1"], dataset="ucf101")
    (tmp_path / "plain.csv").write_text("lists/videos/0.mp4,run\nlists/videos/1.mp4,walk\n")
    (tmp_path / "places.txt").write_text("clip_0 240 97\nclip_1 240 97\n")
    (tmp_path / "clip.safetensors").write_text("weights")
    return tmp_path


GOOD = {
    "model": "ViT-B-16",
    "weights": "clip.safetensors",
    "random_weights": False,
    "device": "cpu",
    "processes": 2,
    "settings": {"epochs": 3, "views": 1},
    "datasets": {"ucf101": "lists/ucf.csv", "kinetics400": "plain.csv", "ssv2": None},
    "scuba": {"ucf101": {"places": {"list": "places.txt", "root": "places"}}},
}


def write(folder, content=None, **changes):
    path = folder / "data.yaml"
    path.write_text(content if content is not None else yaml.safe_dump({**GOOD, **changes}))
    return path


def refused(folder, content=None, **changes) -> str:
    with pytest.raises(PlanError) as error:
        read_data_yaml(write(folder, content, **changes))
    return str(error.value)


def test_relative_paths_start_from_the_files_folder_and_come_out_absolute(world, monkeypatch):
    monkeypatch.chdir("/")
    found = read_data_yaml(write(world))
    assert found.path("ucf101") == str(world / "lists" / "ucf.csv")
    assert found.weights == str(world / "clip.safetensors")
    places = found.scuba["ucf101"]["places"]
    assert (places.list, places.root, places.clips) == (str(world / "places.txt"), str(world / "places"), 2)


def test_what_is_left_out_or_empty_is_lacking(world):
    found = read_data_yaml(write(world))
    assert found.lacks("ucf101", "hmdb51", "ssv2", "scuba.ucf101", "scuba.hmdb51") == ["hmdb51", "ssv2", "scuba.hmdb51"]
    assert found.path("hmdb51") == ""


def test_a_tag_is_kept_and_random_weights_need_none(world):
    assert read_data_yaml(write(world, model="ViT-B-16-quickgelu", weights="openai")).fields()["weights"] == "openai"
    found = read_data_yaml(write(world, weights=None, random_weights=True))
    assert "weights" not in found.fields() and found.fields()["random_weights"]


def test_a_cpu_computes_in_float32_unless_told_otherwise(world):
    assert read_data_yaml(write(world)).fields()["precision"] == "float32"
    assert read_data_yaml(write(world, settings={"precision": "bf16"})).fields()["precision"] == "bf16"
    assert "precision" not in read_data_yaml(write(world, device="cuda")).fields()


def test_small_learning_rates_are_numbers_as_people_write_them(world):
    text = yaml.safe_dump({**GOOD, "settings": {}})
    text = text.replace("settings: {}", "settings: {outer_lr: 5e-6, inner_lr: 1e-2}")
    assert read_data_yaml(write(world, text)).settings == {"outer_lr": 5e-6, "inner_lr": 0.01}


def test_the_example_names_every_key_and_asks_only_for_what_is_here(tmp_path):
    text = (repo_root() / "data.yaml.example").read_text()
    found = read_data_yaml(write(tmp_path, text))
    assert (found.model, found.weights, found.datasets) == ("ViT-B-16-quickgelu", "openai", {})
    assert set(yaml.safe_load(text)) == set(GOOD) and set(yaml.safe_load(text)["datasets"]) == set(DATASETS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": {}}, "dataset={}: unknown key; did you mean datasets?"),
        ({"model": "ViT-B-61"}, "model='ViT-B-61': model 'ViT-B-61' is unknown to open_clip; for example: ViT-B-16"),
        ({"model": None}, "model=None: expected"),
        ({"weights": "clip.pt"}, "weights='clip.pt': no such file"),
        ({"weights": "openai"}, "with them model is ViT-B-16-quickgelu"),
        ({"random_weights": "no"}, "random_weights='no': expected a valid boolean"),
        ({"device": "gpu"}, "device='gpu': expected cpu, cuda, cuda:N or mps"),
        ({"processes": 0}, "processes=0: expected greater than or equal to 1"),
        ({"processes": True}, "processes=True"),
        ({"settings": {"epocs": 3}}, "settings.epocs=3: unknown key; did you mean epochs?"),
        ({"settings": {"epochs": "3"}}, "settings: epochs is '3'; expected int"),
        ({"settings": {"epochs": 1, "warmup_epochs": 1}}, "settings: warmup_epochs is 1; it must be below epochs (1)"),
        ({"settings": {"weights": "openai"}}, "settings.weights='openai': does not belong here: give it as weights:"),
        ({"settings": {"method": "frozen"}}, "settings.method='frozen': does not belong here: the plan's steps say it"),
        ({"datasets": {"ucf": "plain.csv"}}, "datasets.ucf='plain.csv': unknown key; did you mean ucf101?"),
        ({"datasets": {"ucf101": "ucf.csv"}}, "datasets.ucf101='ucf.csv': no such file"),
        ({"datasets": {"hmdb51": "lists/ucf.csv"}}, "its sidecar says that it lists ucf101"),
        ({"datasets": {"ucf101": ["a"]}}, "datasets.ucf101=['a']: expected a valid string"),
        ({"scuba": {"ssv2": {}}}, "scuba.ssv2={}: unknown key"),
        ({"scuba": {"ucf101": {"a b": {}}}}, "scuba.ucf101.a b={}: a background's name"),
        ({"scuba": {"ucf101": {"sea": {"list": "no.txt", "root": "."}}}}, "scuba.ucf101.sea.list='no.txt': no such"),
        ({"scuba": {"ucf101": {"sea": {"root": "places", "x": 1}}}}, "scuba.ucf101.sea.x=1: unknown key"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_reported_with_its_key_its_value_and_what_is_allowed(world, change, message):
    assert message in refused(world, **change)


def test_all_problems_are_reported_at_once(world):
    wrong = {"device": "gpu", "processes": 0, "settings": {"epochs": "3", "views": 0, "x": 1}}
    said = refused(world, **wrong, datasets={"ucf101": "no.csv"})
    assert "6 problems" in said
    for part in ("device=", "processes=", "settings: epochs", "settings: views", "settings.x", "datasets.ucf101"):
        assert part in said, part


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "no valid YAML"),
        ("- a", "expected a mapping with the keys model"),
        ("", "expected a mapping"),
        ("datasets: {ucf101: a}\nmodel: b\ndatasets: {}", "given twice: datasets"),
    ],
)
def test_a_file_that_is_no_data_yaml_is_refused(tmp_path, text, message):
    assert message in refused(tmp_path, text)


def test_without_the_file_it_is_said_what_to_copy(tmp_path):
    with pytest.raises(PlanError, match=r"copy data\.yaml\.example to data\.yaml"):
        read_data_yaml(tmp_path / "data.yaml")


def test_a_sidecar_of_another_list_is_refused(world):
    (world / "lists" / "ucf.json").write_text('{"root": "", "classes": ["run", "walk"], "csv_sha256": "0"}')
    assert "another version of ucf.csv" in refused(world)
