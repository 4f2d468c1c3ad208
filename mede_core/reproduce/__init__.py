"""`make reproduce`: every notebook of the plan, executed, checked, and shown in one report.

`plan` reads and validates notebooks/reproduce.yaml, `stepkey` says when a step is stale, `execute` runs one
notebook in a process of its own, `runner` schedules the steps and keeps the manifest, `gallery` and
`summary` write the report, `cli` is the command line. Exit codes: 0 all good, 1 a notebook failed, 2 the
plan, a parameter or the environment is wrong, 3 a number comparable with the paper's is outside its
tolerance.

Nothing outside this package imports papermill or nbconvert, and nothing in it imports torch.
"""
