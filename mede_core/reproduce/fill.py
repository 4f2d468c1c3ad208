"""The values of data.yaml put into the steps of a plan, and which steps it has no data for."""

from dataclasses import replace

from mede_core.reproduce import PlanError
from mede_core.reproduce.plan import Plan, Step, notebook_parameters
from mede_core.reproduce.sources import SCALARS, Sources, filled, placeholders

NOT_RUN = "not_run"  # a notebook with this parameter gets the ids of the steps it needs that had no data


def fill(plan: Plan, sources: Sources, ids) -> Plan:
    """Return a plan whose chosen steps hold the values of data.yaml, or say what it lacks for them.

    Model, weights, device, number of processes and the settings go into each step whose notebook has a parameter of
    that name, whether the step names them or not; what the step itself says goes first.

    Args:
        plan: a plan of a profile that reads data.yaml.
        sources: data.yaml.
        ids: the chosen steps; the others are left as they are.

    Raises:
        PlanError: if no step that uses data.yaml has what it needs.
    """
    notebooks = {step.notebook for step in plan.steps if step.id in ids}
    defaults = {name: notebook_parameters(plan.folder / name) for name in notebooks}
    steps = [_filled(s, sources, defaults[s.notebook]) if s.id in ids else s for s in plan.steps]
    lacking = {step.id for step in steps if step.missing}
    uses = [step for step in steps if step.id in ids and placeholders(plan.step(step.id).parameters)]
    if uses and all(step.missing for step in uses):
        lines = [f"{step.id}: needs {', '.join(step.missing)}" for step in uses]
        raise PlanError("\n  ".join([f"nothing can run: {sources.path} has the data of no chosen step", *lines]))
    for number, step in enumerate(steps):
        if step.id in ids and NOT_RUN in defaults[step.notebook]:
            absent = " ".join(need for need in step.needs if need in lacking)
            steps[number] = replace(step, parameters={**step.parameters, NOT_RUN: absent})
    return replace(plan, steps=tuple(steps))


def _filled(step: Step, sources: Sources, defaults: dict) -> Step:
    if missing := tuple(name for name in placeholders(step.parameters) if sources.get(name) is None):
        return replace(step, missing=missing)
    usual = {**{name: f"${{{name}}}" for name in SCALARS}, **sources.settings}
    parameters = {**{name: value for name, value in usual.items() if name in defaults}, **step.parameters}
    data = {name: sources.content_hash(name) for name in placeholders(parameters) if sources.content_hash(name)}
    written = {name: value for name, value in parameters.items() if any(each in data for each in placeholders(value))}
    return replace(step, parameters=filled(parameters, sources), data=data, written=written)


def unused(plan: Plan, sources: Sources, ids) -> list[str]:
    """Return what data.yaml says and no chosen step takes, one line each; nothing of it is an error.

    Args:
        plan: the plan, filled.
        sources: data.yaml.
        ids: the chosen steps.
    """
    steps = [step for step in plan.steps if step.id in ids and not step.missing]
    taken = [{**step.parameters, **step.written} for step in steps]
    whole = any("data_yaml" in step.data for step in steps)  # its notebook reads the file itself
    lines = []
    for name, value in sources.settings.items():
        otherwise = [step.id for step in steps if name in step.parameters and step.parameters[name] != value]
        if not any(name in parameters for parameters in taken) and not whole:
            lines.append(f"settings.{name}={value!r}: no chosen notebook has a parameter of this name")
        elif otherwise:
            lines.append(f"settings.{name}={value!r}: the plan says otherwise for {', '.join(otherwise)}")
    named = {name for step in plan.steps if step.id in ids for name in (*step.data, *step.missing)}
    if not whole:
        lines += [f"datasets.{name}: no chosen step uses it" for name in sources.datasets if name not in named]
    return lines
