"""Prompt sets: the published templates, rephrased names, and class names as a prompt says them."""

import json

import pytest

from mede_core.learner import build_learner
from mede_core.video.classes import TEMPLATES, clean_name, load_prompts


def test_the_28_templates_are_4_kinds_of_7():
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 28
    assert all(template.count("{}") == 1 and template.endswith(".") for template in TEMPLATES)
    for kind in ("photo", "video", "example", "demonstration"):
        begin = f"a {kind} of "
        mine = [template.removeprefix(begin) for template in TEMPLATES if template.startswith(begin)]
        verbs = ["", "using ", "doing ", "during ", "performing ", "practicing "]
        assert mine == ["{}.", *(f"a person {verb}{{}}." for verb in verbs)]


def test_names_and_templates_give_each_class_as_many_texts():
    names = ["yoga", "saying {hi}"]
    assert load_prompts("name").texts(names) == [["yoga"], ["saying {hi}"]]
    texts = load_prompts("templates").texts(names)
    assert [len(of_class) for of_class in texts] == [28, 28]
    assert texts[1][0] == "a photo of saying {hi}."  # braces in a name are no template
    assert (load_prompts("name").id, load_prompts("templates").id) == ("name", "28 templates")


@pytest.mark.parametrize(
    "content",
    [
        {"yoga": "Yoga: stretching on a mat", "Tai Chi": "slow: quiet moves"},
        {"0": "yoga: stretching on a mat", "1": "TaiChi: slow: quiet moves"},
        ["yoga: stretching on a mat", "Tai Chi: slow: quiet moves"],
    ],
)
def test_rephrased_names_make_29_texts(tmp_path, content):
    (tmp_path / "r.json").write_text(json.dumps(content))
    prompts = load_prompts(tmp_path / "r.json")
    texts = prompts.texts(["tai chi", "yoga"])
    assert [len(of_class) for of_class in texts] == [29, 29]
    assert texts[0][0] == "a photo of tai chi. tai chi: slow: quiet moves"
    assert texts[0][-1] == "tai chi: slow: quiet moves"
    assert texts[1][27] == "a demonstration of a person practicing yoga. yoga: stretching on a mat"
    assert load_prompts(str(tmp_path / "r.json")).id == prompts.id
    (tmp_path / "r.json").write_text(json.dumps({"yoga": "another sentence"}))
    assert prompts.id.startswith("28 templates + rephrased:") and load_prompts(tmp_path / "r.json").id != prompts.id


def test_classes_without_a_sentence_are_all_named(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"yoga": "x", "zumba": "y"}))
    with pytest.raises(ValueError, match=r"no sentence for 2 classes: .*'yogha'; did you mean 'yoga'.*'rowing'"):
        load_prompts(tmp_path / "r.json").texts(["yogha", "zumba", "rowing"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "r.json"),
        ("{}", "expected {class name: sentence}, one at least"),
        ("3", "expected {class name: sentence}"),
        ('{"yoga": ""}', "the sentence of 'yoga' is ''"),
        ('{"0": "no name"}', "entry 0 is 'no name'"),
        ('{"yoga": "a", "Yoga": "b"}', "is there twice"),
    ],
)
def test_bad_files_of_sentences_are_refused(tmp_path, text, said):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        load_prompts(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("dataset", "raw", "clean"),
    [
        ("kinetics400", "passing American football (not in game)", "passing american football (not in game)"),
        ("kinetics600", "Dyeing hair", "dyeing hair"),
        ("ucf101", "ApplyEyeMakeup", "Apply Eye Makeup"),
        ("ucf101", "YoYo", "Yoyo"),
        ("ucf101", "HandstandPushups", "Handstand Pushups"),
        ("hmdb51", "shoot_ball", "shoot ball"),
        ("ssv2", "Pushing [something] from left to right", "Pushing something from left to right"),
        ("folder", "arm_wrestling ", "arm wrestling"),
        ("list", "As_is", "As_is"),
    ],
)
def test_class_names_are_cleaned_as_their_dataset_needs(dataset, raw, clean):
    assert clean_name(dataset, raw) == clean


FOOTBALL = ["passing American football (in game)", "passing American football (not in game)"]


def test_texts_that_the_tower_cuts_off_are_named_with_their_tokens_and_the_limit(caplog):
    learner = build_learner("mede-small", "shipped")
    for _ in range(2):
        learner.set_classes([FOOTBALL[0], "archery"])
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"texts are cut off after 16 tokens: {FOOTBALL[0]!r} has ")
    assert int(said.rsplit(" ", 2)[1]) > 16


@pytest.mark.parametrize("names", [FOOTBALL, ["archery", "Archery"]])
def test_classes_of_the_same_tokens_are_refused_before_anything_is_scored(names):
    learner = build_learner("mede-small", "shipped").set_classes(["a", "b"])
    with pytest.raises(ValueError) as caught:
        learner.set_classes([names[0], "bowling", names[1]])
    assert f"classes {names[0]!r} and {names[1]!r} have the same tokens (at most 16 are read)" in str(caught.value)
    assert learner.class_names == ["a", "b"]
