"""`make reproduce`: every notebook of the plan, executed, checked, and shown in one report.

`plan` reads and validates notebooks/reproduce.yaml (`matrix` makes several steps of one), `sources` reads data.yaml,
which names weights and real videos, and `fill` puts its values into the steps; `preflight` says what is there and what
is missing, `estimate` what it will cost. `stepkey` says when a step is stale, `execute` runs one notebook in a process
of its own, `runner` schedules the steps and keeps the manifest, `gallery` and `summary` write the report, `cli` is the
command line. Exit codes: 0 all good, 1 a notebook failed, 2 the plan, a parameter, data.yaml or the environment is
wrong, 3 a number comparable with the paper's is outside its tolerance.

Nothing outside this package imports papermill or nbconvert, and nothing in it imports torch.
"""


class PlanError(ValueError):
    """The plan, a parameter, data.yaml or the environment is wrong; nothing was started."""
