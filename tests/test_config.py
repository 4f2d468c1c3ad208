"""Configuration: validated at its door, JSON and back, and what of it decides a training."""

import json

import numpy as np
import pytest

from mede_core.config import METHODS, PROFILES, Average, Config, EvalSet, diff, load_config, setting


@pytest.mark.parametrize("make", [load_config, Config, load_config().replace])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rho", 1.5), ("batch_size", 1), ("epochs", 0), ("epochs", 2.5), ("method", "magic"), ("trainable", "text"),
        ("outer_lr", 0.0), ("inner_lr", -1.0), ("inner_lr", float("nan")), ("query_weight", float("inf")),
        ("gwa_sigma", -1.0), ("max_grad_norm", 0.0), ("adapter_width", 0), ("warmup_epochs", 8), ("first_order", 1),
        ("seed", True), ("rho", False), ("epochs", "3"), ("data", 3), ("method", ["open_mede"]), ("half", None),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_in_one_line_with_field_value_and_what_is_allowed(make, field, value):
    with pytest.raises(ValueError) as caught:
        make(**{field: value})
    assert type(caught.value) is ValueError
    assert str(caught.value).startswith(f"{field} is {value!r}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rho": 1.5}, "rho is 1.5; allowed: 0.0 to 1.0"),
        ({"outer_lr": 0.0}, "outer_lr is 0.0; allowed: above 0.0, up to 10.0"),
        ({"border": "wrap"}, "border is 'wrap'; allowed: 'zero', 'mask'"),
        ({"epochs": 2.5}, "epochs is 2.5; expected int"),
        ({"swa_start": 9, "method": "froster"}, "swa_start is 9; it must not exceed epochs (8)"),
        ({"temporal_module": "expanded"}, "nothing would be trained; use trainable='visual'"),
    ],
)
def test_the_message_says_what_is_allowed(settings, message):
    with pytest.raises(ValueError) as caught:
        load_config(**settings)
    assert message in str(caught.value)


def test_unknown_fields_and_profiles_are_refused():
    with pytest.raises(ValueError, match="unknown configuration fields.*learning_rate.*'zeta'.*known: adapter_form"):
        load_config(learning_rate=1.0, zeta=3)
    with pytest.raises(ValueError, match="profile is 'gpu'; allowed: smoke, cpu"):
        load_config("gpu")


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [(EvalSet, "order", "backwards"), (EvalSet, "clips", 0), (EvalSet, "part", 2.5), (Average, "rule", "median"),
     (Average, "patch", 1.5), (Average, "epoch", -1)],
)  # fmt: skip
def test_tests_and_averages_are_checked_alike(make, field, value):
    with pytest.raises(ValueError, match=rf"{field} is {value!r}; "):
        make(**{field: value})


def test_numbers_of_numpy_are_plain_numbers():
    config = load_config(seed=np.int64(3), rho=np.float32(0.5), first_order=np.bool_(False))
    assert [type(value) for value in (config.seed, config.rho, config.first_order)] == [int, float, bool]
    with pytest.raises(ValueError, match="seed is 3.0; expected int"):
        load_config(seed=np.float64(3))


def test_integers_are_accepted_for_floats_and_are_the_same_configuration():
    assert load_config(rho=1) == load_config(rho=1.0) and hash(load_config(rho=1)) == hash(load_config(rho=1.0))
    assert json.dumps(load_config(rho=1).model_dump()) == json.dumps(load_config(rho=1.0).model_dump())


def test_a_configuration_is_frozen_and_goes_through_json_unchanged():
    config = load_config("paper", method="froster", shots=16)
    with pytest.raises(ValueError, match="frozen"):
        config.rho = 0.5
    assert Config(**json.loads(config.model_dump_json())) == config
    assert config.replace(seed=4).replace(seed=config.seed) == config


def test_methods_that_differ_in_averaging_share_a_training():
    shared = [load_config(method=m, gwa_mu=mu) for m in ("open_mede", "open_mede_no_gwa") for mu in (0.0, 3.0)]
    assert all(one.run_settings() == shared[0].run_settings() for one in shared)
    assert load_config(method="finetune").run_settings() != shared[0].run_settings()


@pytest.mark.parametrize(
    ("recipe", "change"),
    [
        ({"method": "finetune"}, {"inner_lr": 1.0}), ({"method": "finetune"}, {"inner_sync": False}),
        ({}, {"distill_weight": 1.0}), ({}, {"iwr_max": 0.5}), ({}, {"border": "mask"}), ({}, {"views": 3}),
        ({}, {"sampling": "dense"}), ({}, {"shots": 2}), ({}, {"compat": "pyav"}), ({}, {"test_clips": 7}),
        ({"data": "a.csv"}, {"rho": 0.1}), ({"data": "a.csv"}, {"data": "b.csv"}),
        ({"temporal_module": "aim"}, {"adapter_form": "published"}), ({"method": "frozen"}, {"epochs": 12}),
        ({"trainable": "visual", "temporal_module": "expanded"}, {"adapter_width": 12}),
    ],
)  # fmt: skip
def test_what_cannot_matter_is_no_part_of_a_run(recipe, change):
    assert load_config(**{**recipe, **change}).run_settings() == load_config(**recipe).run_settings()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1}, {"rho": 0.5}, {"epochs": 9}, {"random_weights": True}, {"model": "ViT-B-32"}, {"data": "a.csv"},
        {"micro_batch": 8}, {"inner_lr": 1.0}, {"trainable": "visual"}, {"prompts": "templates"}, {"held_out": 1},
    ],
)  # fmt: skip
def test_what_changes_a_training_is_part_of_it(change):
    assert load_config(**change).run_settings() != load_config().run_settings()


def test_a_file_of_prompts_counts_by_its_content(tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text('{"run": "run: fast"}')
    second.write_text('{"run": "run: fast"}')
    settings = load_config(prompts=str(first)).run_settings()
    assert load_config(prompts=str(second)).run_settings() == settings
    first.write_text('{"run": "run: slow"}')
    assert load_config(prompts=str(first)).run_settings() != settings


def test_a_setting_added_later_stays_out_of_the_run_at_the_value_that_reproduces_the_past():
    class Newer(Config):
        damping: float = setting(0.5, "added later", past=0.0, ge=0.0, le=1.0)

    assert Newer(damping=0.0).run_settings() == Config().run_settings()
    assert Newer().run_settings() == Config().run_settings() | {"damping": 0.5}


def test_gwa_defaults_to_the_published_ratio_of_the_epochs():
    config = load_config(epochs=22)
    assert (config.mu, config.sigma) == pytest.approx((0.68 * 22, 0.45 * 22))
    assert load_config(gwa_mu=3.0, gwa_sigma=1.5).average() == Average("gwa", mu=3.0, sigma=1.5)


def test_diff_lists_only_what_differs():
    assert diff(load_config(rho=0.5, seed=3), load_config()) == {"rho": (0.8, 0.5), "seed": (0, 3)}
    assert diff(Config(), Config()) == {}


def test_every_profile_and_method_is_valid():
    for profile in PROFILES:
        for method in METHODS:
            assert load_config(profile, method=method).method == method
