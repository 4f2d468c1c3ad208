"""One entry of the plan that stands for many steps, and needs and published files that name many at once."""

import pytest
from toy_notebooks import PARAMETERS, notebook, project

from mede_core.reproduce.plan import PlanError, check_parameters, load_plan

PLAN = """
profiles: {cpu: {}, paper: {data: true}}
publish: ["figures/{method}_{dataset}.svg"]
steps:
  - {id: index, notebook: a.ipynb}
  - {id: "train_{method}", notebook: a.ipynb, matrix: {method: [frozen, ours]}, provides: ["runs:{method}/done.json"],
     parameters: {common: {word: "with {method}"}}}
  - {id: "eval_{method}_{dataset}", notebook: a.ipynb, matrix: {method: [frozen, ours], dataset: [ucf101, hmdb51]},
     needs: ["train_{method}"], provides: ["figures/{method}_{dataset}.svg"], minutes: 3,
     parameters: {common: {word: "{dataset}", seed: 1}, paper: {word: "${{dataset}}", list: ["{method}", 2]}}}
  - {id: table, notebook: a.ipynb, needs: [index, "eval_*_ucf101", "train_*"]}
"""


@pytest.fixture
def load(tmp_path):
    """Return a function that loads the plan, changed by (old, new) pairs."""

    def load(*changes, profile="cpu"):
        text = PLAN
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        cell = PARAMETERS + "\nlist = []"
        return load_plan(project(tmp_path, {"a.ipynb": notebook("x = 1", parameters=cell)}, text), profile)

    return load


def test_a_matrix_makes_one_step_for_each_combination_in_the_order_written(load):
    assert [step.id for step in load().steps] == [
        "index", "train_frozen", "train_ours", "eval_frozen_ucf101", "eval_frozen_hmdb51", "eval_ours_ucf101",
        "eval_ours_hmdb51", "table",
    ]  # fmt: skip


def test_a_name_is_replaced_in_needs_provides_and_parameters_and_nowhere_else(load):
    step = load(profile="paper").step("eval_ours_hmdb51")
    assert step.needs == ("train_ours",)
    assert step.provides == ("figures/ours_hmdb51.svg",)
    assert step.parameters == {"word": "${hmdb51}", "seed": 1, "list": ["ours", 2]}
    assert step.minutes == 3 and step.notebook == "a.ipynb"


def test_a_glob_in_needs_stands_for_all_matching_steps_in_the_plans_order(load):
    plan = load()
    assert plan.step("table").needs == ("index", "eval_frozen_ucf101", "eval_ours_ucf101", "train_frozen", "train_ours")
    assert plan.with_needs({"table"}) == {s.id for s in plan.steps} - {"eval_frozen_hmdb51", "eval_ours_hmdb51"}


def test_a_glob_does_not_match_its_own_step(load):
    assert load(('[index, "eval_*_ucf101", "train_*"]', '["*"]')).step("table").needs[-1] == "eval_ours_hmdb51"


def test_a_published_template_stands_for_all_its_files(load):
    assert load().publish == tuple(f"figures/{m}_{d}.svg" for m in ("frozen", "ours") for d in ("ucf101", "hmdb51"))


def test_a_profile_publishes_what_its_own_steps_provide(load):
    change = ("minutes: 3,", "minutes: 3, profiles: [cpu],"), ('"eval_*_ucf101", ', "")
    assert load(*change, profile="paper").publish == ()
    assert len(load(*change).publish) == 4


def test_steps_of_a_matrix_share_a_notebook_and_have_their_own_parameters(load):
    effective = check_parameters(plan := load(), {step.id for step in plan.steps})
    assert effective["train_ours"]["word"] == "with ours" and effective["eval_frozen_ucf101"]["word"] == "ucf101"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("with {method}", "with {methd}", r"step train_\{method\}: 'with \{methd\}'.*known: method"),
        ("id: table, ", 'id: table, provides: ["a/{method}"], ', "step table: .*known: none, for it has no matrix"),
        ('"train_*"]', '"test_*"]', r"step table: needs='test_\*' matches no step"),
        ('"train_*"]', '"train_{method}"]', r"step table: 'train_\{method\}' holds the unknown placeholder"),
        ('"train_{method}"]', '"train_{dataset}"]', "step eval_frozen_ucf101: needs='train_ucf101': no such step"),
        ("eval_{method}_{dataset}\"", "eval_{method}\"", r"does not hold \{dataset\}"),
        ("[ucf101, hmdb51]", "[ucf101, 51]", r"dataset=\['ucf101', 51\]: expected a list of different strings"),
        ("[ucf101, hmdb51]", "[ucf101, ucf101]", "expected a list of different strings"),
        ("[ucf101, hmdb51]", "[]", "expected a list of different strings"),
        ("[ucf101, hmdb51]", "ucf101", "expected a list of different strings"),
        ("[ucf101, hmdb51]", "[ucf-101, hmdb51]", "step 'eval|letters, digits"),
        ("matrix: {method: [frozen, ours]}", "matrix: [frozen, ours]", "expected a mapping"),
        ('"figures/{method}_{dataset}.svg"]\nsteps', '"figures/{method}.svg"]\nsteps', "no step provides it"),
        ("word: \"{dataset}\"", "word: \"${ucf101}\"", r"step eval_frozen_ucf101: \$\{ucf101\} comes from data.yaml"),
    ],
)  # fmt: skip
def test_a_wrong_matrix_is_refused_with_the_step_and_the_value(load, old, new, message):
    with pytest.raises(PlanError, match=message):
        load((old, new))


def test_whether_a_profile_reads_data_yaml_is_yes_or_no(load):
    with pytest.raises(PlanError, match="profile paper: data='maybe': expected true or false"):
        load(("data: true", "data: maybe"), profile="paper")


def test_a_placeholder_that_data_yaml_cannot_hold_is_refused(load):
    with pytest.raises(
        PlanError, match=r"step eval_frozen_ucf101: unknown placeholder \$\{ucf101_list\}; known: model"
    ):
        load(("${{dataset}}", "${{dataset}_list}"), profile="paper")
    with pytest.raises(PlanError, match=r"unknown placeholder \$\{scuba.ssv2\}"):
        load(("${{dataset}}", "${scuba.ssv2}"), profile="paper")
