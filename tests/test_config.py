"""Configuration: validated, hashed by what matters, shared trajectories."""

import subprocess
import sys

import pytest

from mede_core.config import METHODS, PROFILES, Config, diff, load_config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rho", 1.5), ("batch_size", 1), ("epochs", 0), ("epochs", 2.5), ("method", "magic"), ("trainable", "text"),
        ("outer_lr", 0.0), ("inner_lr", -1.0), ("inner_lr", float("nan")), ("query_weight", float("inf")),
        ("gwa_sigma", -1.0), ("max_grad_norm", 0.0), ("adapter_width", 0), ("warmup_epochs", 8), ("first_order", 1),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_with_field_and_value(field, value):
    with pytest.raises(ValueError, match=rf"{field} is {value!r}"):
        load_config(**{field: value})


def test_unknown_fields_and_profiles_are_refused():
    with pytest.raises(ValueError, match="unknown configuration fields.*learning_rate"):
        load_config(learning_rate=1.0)
    with pytest.raises(ValueError, match="profile is 'gpu'; allowed: smoke, cpu"):
        load_config("gpu")


def test_methods_that_differ_in_averaging_share_a_training_run():
    names = {
        load_config(method=m, gwa_mu=mu).run_name() for m in ("open_mede", "open_mede_no_gwa") for mu in (0.0, 3.0)
    }
    assert len(names) == 1
    assert load_config(method="finetune").run_name() not in names


def test_the_inner_step_is_no_part_of_a_plain_run():
    assert load_config(method="finetune", inner_lr=1.0).run_name() == load_config(method="finetune").run_name()
    assert load_config(inner_lr=1.0).run_name() != load_config().run_name()


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"rho": 0.5}, {"weights": "x"}, {"epochs": 9}, {"random_weights": True}]
)
def test_what_changes_training_changes_the_hash(change):
    assert load_config(**change).training_hash() != load_config().training_hash()


def test_gwa_defaults_to_the_published_ratio_of_the_epochs():
    config = load_config(epochs=22)
    assert (config.mu, config.sigma) == pytest.approx((0.68 * 22, 0.45 * 22))
    assert load_config(gwa_mu=3.0, gwa_sigma=1.5).mu == 3.0


def test_diff_lists_only_what_differs():
    assert diff(load_config(rho=0.5, seed=3), load_config()) == {"rho": (0.8, 0.5), "seed": (0, 3)}
    assert diff(Config(), Config()) == {}


def test_integers_are_accepted_for_floats_and_hash_alike():
    assert load_config(rho=1).hash() == load_config(rho=1.0).hash()


def test_every_profile_and_method_is_valid():
    for profile in PROFILES:
        for method in METHODS:
            load_config(profile, method=method)


def test_config_loads_no_torch():
    code = "import sys, mede_core.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
