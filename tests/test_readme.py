"""The README's example runs as printed, and its links lead somewhere."""

import re

from mede_core.files import repo_root

TEXT = (repo_root() / "README.md").read_text(encoding="utf-8")


EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_workspace_answers_as_printed(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDE_RUNS", str(tmp_path))
    monkeypatch.setenv("MEDE_MAKE", "0")  # what it asks for ships with the package
    scope = {}
    exec(compile(EXAMPLES[0], "README.md", "exec"), scope)
    assert scope["run"].shipped and scope["scores"][0]["n"] == 2500


def test_the_example_runs_and_stays_ten_lines_or_so():
    code = EXAMPLES[1]
    assert len(code.strip().splitlines()) <= 14
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    before = scope["torch"].nn.Linear(8, 3)
    scope["average"].copy_to(before)
    assert all(scope["torch"].equal(a, b) for a, b in zip(before.parameters(), scope["model"].parameters()))
    assert scope["average"].epochs == [1, 2, 3, 4, 5, 6]


def test_every_local_link_and_picture_exists():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT) + re.findall(r'(?:src|srcset)="([^"]+)"', TEXT)
    missing = [target for target in targets if not (repo_root() / target).exists()]
    assert len(targets) > 10 and not missing
