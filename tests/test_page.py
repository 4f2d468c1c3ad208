"""A notebook's page: one call saves and shows, settings are the effective ones, and marks follow the numbers."""

import pandas as pd
import pytest

from mede_core.config import Config, load_config
from mede_core.files import repo_root
from mede_core.report.figures.style import Picture
from mede_core.report.page import Page, marked, marks


def test_a_figure_and_a_table_are_saved_and_shown_by_one_call(tmp_path):
    page = Page(tmp_path)
    figure = page.figure("f", lambda: Picture(1, "title", width=2), {"a": [1]}, run="meta-1")
    _, about = figure._repr_png_()
    assert about == {"width": 200, "height": 100, "alt": "title", "figure": "f"}, "what the gallery shows in its place"
    html = page.table("t", pd.DataFrame({"Method": ["x"], "In": [1.25]}), caption="What it is", notes=["a note"])
    assert "What it is" in html.data and "a note" in html.data
    kinds = {where: {path.suffix for path in (tmp_path / where).iterdir()} for where in ("figures", "tables")}
    assert kinds["figures"] == {".svg", ".pdf", ".png", ".json"}
    assert kinds["tables"] == {".html", ".md", ".tex", ".csv", ".json"}


def test_pages_lie_in_the_repository_or_below_the_working_directory_and_that_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    assert Page().folder == repo_root() / "reports" / "lab", "also for a notebook that is run from elsewhere"
    assert Page(2024).folder.name == "2024", "papermill takes a number for one"
    assert not caplog.messages
    monkeypatch.setattr("mede_core.report.page.repo_root", lambda: None)
    with caplog.at_level("INFO"):
        assert Page().folder == tmp_path / "reports" / "lab"
    assert str(tmp_path) in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_settings_are_those_asked_for_and_all_that_are_changed(tmp_path):
    config = load_config("smoke", method="finetune", weights="/some/where/clip.pt")
    table = Page(tmp_path).settings(config, "rho", "epochs").data
    rows = table.set_index("Setting")
    assert list(table["Setting"])[:2] == ["rho", "epochs"]
    assert rows.loc["rho"].tolist() == ["0.8", "0.8", ""] and rows.loc["epochs"].tolist() == ["2", "8", "yes"]
    assert rows.loc["weights", "Value"] == "clip.pt", "no folder of this machine"
    assert set(table["Setting"][table["Changed"] == "yes"]) > {"method", "warmup_epochs", "train_clips"}
    with pytest.raises(ValueError, match=r"unknown settings \['speed'\]"):
        Page(tmp_path).settings(Config(), "speed")


def test_of_records_their_own_settings_are_shown_and_each_value_where_they_differ(tmp_path):
    page = Page(tmp_path)
    shots = [load_config("paper", method=method, data="k400.csv", shots=16) for method in ("open_mede", "frozen")]
    records = [{"settings": config.run_settings()} for config in shots]
    rows = page.settings(records, "epochs", "shots", "inner_lr").data.set_index("Setting")
    assert rows.loc["epochs", "Value"] == "12", "whatever the profile says without shots; frozen CLIP has none"
    assert rows.loc["shots", "Value"] == "16" and rows.loc["inner_lr", "Value"] == "0.01"
    worlds = [{"settings": load_config("smoke", rho=rho).run_settings()} for rho in (0.25, 1.0, 0.25)]
    rows = page.settings(worlds, "rho", "data").data.set_index("Setting")
    assert rows.loc["rho"].tolist() == ["0.25, 1", "0.8", "yes"] and rows.loc["data"].tolist() == ["world", "world", ""]
    assert page.settings([], "epochs").data["Value"].tolist() == ["–"]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([], ""),
        ([{"weights": "shipped:1"}], ""),
        ([{"weights": "random"}, {"weights": "shipped:1"}], "RANDOM WEIGHTS: these numbers mean nothing"),
        ([{"weights": "hf-hub:me/tiny-random-clip"}], "RANDOM WEIGHTS: these numbers mean nothing"),
        ([{"weights": "s", "shipped": True}], "shipped with the package"),
        ([{"weights": "s", "shipped": True}, {"weights": "s"}], "partly shipped with the package"),
        ([{"weights": "random", "older": True}], "RANDOM WEIGHTS: these numbers mean nothing; made by older code"),
    ],
)
def test_marks_say_what_must_stand_beside_every_number(records, said):
    assert marks(records) == said
    assert marked("Title", records) == (f"Title ({said})" if said else "Title")
