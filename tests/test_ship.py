"""What ships with the package answers what notebooks in Lab ask, under today's code, and is small."""

from mede_core.batch import ship
from mede_core.runs import trains
from mede_core.workspace import SHIPPED, Workspace


def test_every_question_in_lab_is_answered_by_what_ships(tmp_path):
    workspace = Workspace(tmp_path, shipped=True, make=False)
    for ask in ship.in_lab():
        if ask.sets:
            records = workspace.scores(ask.config, ask.sets, ask.average)
            assert all(record["shipped"] for record in records)
        elif trains(ask.config):
            run = workspace.run(ask.config)
            assert run.shipped and run.weights()
    assert not any(tmp_path.rglob("*.jsonl"))


def test_nothing_ships_that_nobody_asks_for():
    asked = {run for run, _ in ship.names()}
    assert {path.stem for path in (SHIPPED / "scores").iterdir()} <= asked
    assert {path.parent.name for path in SHIPPED.glob("*/done.json")} <= asked


def test_what_ships_is_small():
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 6e6
