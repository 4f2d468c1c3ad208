"""`make reproduce`: what each notebook asks for, data.yaml, cost, the jobs and their runner; doctor. Torch-free."""


class PlanError(ValueError):
    """The plan, a parameter or data.yaml is wrong: nothing was started (exit code 2)."""
