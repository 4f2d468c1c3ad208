"""The contents page says of each notebook what its first cell says."""

import json

from mede_core.files import repo_root
from mede_core.lab.contents import contents, contents_markdown


def test_the_contents_page_lists_every_notebook_with_its_link_and_cost(tmp_path):
    prose = "# A *title*\n\n**You will learn**\n- one thing,\n  on two lines\n- a|b.\n\n"
    prose += "**Cost**: 1 min,\nat once. **Inputs**: x"
    for name, text in (("b.ipynb", "# Another"), ("a.ipynb", prose)):
        notebook = {"cells": [{"cell_type": "markdown", "source": text.splitlines(keepends=True)}]}
        (tmp_path / name).write_text(json.dumps(notebook), encoding="utf-8")
    frame = contents(tmp_path)
    assert frame.iloc[0].tolist() == ["a.ipynb", "A title", "one thing, on two lines; a|b", "1 min, at once"]
    assert frame.iloc[1].tolist() == ["b.ipynb", "Another", "", ""]
    assert "| [A title](a.ipynb) | one thing, on two lines; a\\|b | 1 min, at once |" in contents_markdown(frame)


def test_every_notebook_of_the_suite_says_what_it_teaches_and_costs():
    frame = contents(repo_root() / "notebooks")
    assert len(frame) > 10 and (frame[["title", "learn", "cost"]] != "").all(axis=None)
