"""Steps of the plan that stand for many: `matrix: {method: [...], dataset: [...]}` makes one step per combination."""

import fnmatch
import functools
import itertools
import re
from collections.abc import Callable, Iterator

from mede_core.reproduce import PlanError

_FIELDS = ("id", "needs", "provides", "parameters")  # where {name} is replaced
_NAME = re.compile(r"(?<!\$)\{(\w+)\}")  # {method}; the braces of ${ucf101} are data.yaml's
_GLOB = re.compile(r"[*?\[]")


def map_strings(value, function: Callable[[str], object]):
    """Return a value of lists and mappings with each string replaced by what a function makes of it."""
    if isinstance(value, str):
        return function(value)
    if isinstance(value, list | tuple):
        return [map_strings(item, function) for item in value]
    if isinstance(value, dict):
        return {key: map_strings(item, function) for key, item in value.items()}
    return value


def expand(entries: list) -> tuple[list, dict[str, list[str]]]:
    """Replace each entry that has a matrix by one entry per combination, in the order written (last name fastest).

    Args:
        entries: the plan's raw steps; what is no mapping is left for the plan's own checks.

    Returns:
        the entries without `matrix`, and {template in a matrix step's provides: the names it stands for}.

    Raises:
        PlanError: a malformed matrix, a `{name}` that it does not have, or an id that would be used twice.
    """
    expanded: list = []
    templates: dict[str, list[str]] = {}
    for entry in entries:
        if not isinstance(entry, dict):
            expanded.append(entry)
            continue
        where = f"step {entry.get('id')}"
        rest = {name: value for name, value in entry.items() if name != "matrix"}
        for values in _combinations(entry, where):
            replaced = functools.partial(_replaced, values=values, where=where)
            step = {name: map_strings(value, replaced) if name in _FIELDS else value for name, value in rest.items()}
            expanded.append(step)
            if values:
                for template, name in zip(rest.get("provides") or (), step.get("provides") or (), strict=True):
                    templates.setdefault(template, []).append(name)
    return expanded, templates


def _combinations(entry: dict, where: str) -> Iterator[dict[str, str]]:
    if "matrix" not in entry:
        yield {}
        return
    matrix = entry["matrix"]
    if not isinstance(matrix, dict) or not matrix:
        raise PlanError(f"{where}: matrix={matrix!r}: expected a mapping such as {{method: [a, b]}}")
    for name, values in matrix.items():
        if not re.fullmatch(r"\w+", str(name)):
            raise PlanError(f"{where}: matrix: name {name!r}: expected letters, digits and underscores")
        good = isinstance(values, list) and values and all(isinstance(v, str) and v and "{" not in v for v in values)
        if not good or len(set(values)) != len(values):
            raise PlanError(f"{where}: matrix: {name}={values!r}: expected a list of different strings without braces")
        if f"{{{name}}}" not in str(entry.get("id")):
            raise PlanError(f"{where}: its id does not hold {{{name}}}, so its steps would all have the same id")
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def _replaced(text: str, values: dict[str, str], where: str) -> str:
    def value(match: re.Match) -> str:
        if match[1] not in values:
            known = ", ".join(values) or "none, for it has no matrix"
            raise PlanError(f"{where}: {text!r} holds the unknown placeholder {match[0]}; known: {known}")
        return values[match[1]]

    return _NAME.sub(value, text)


def expand_published(names, templates: dict[str, list[str]]) -> list[str]:
    """Return the plan's published files, with a matrix step's template replaced by the names it stands for."""
    return [name for template in names for name in templates.get(template, [template])]


def resolve_needs(needs, step_id: str, ids: list[str]) -> tuple[str, ...]:
    """Return a step's needs with each glob over step ids replaced by the steps it matches, in the plan's order.

    Args:
        needs: step ids or globs, such as `train_*`.
        step_id: the step; a glob does not match the step itself.
        ids: all steps of the profile.

    Raises:
        PlanError: a glob that matches no step.
    """
    found: list[str] = []
    for need in needs:
        if not _GLOB.search(need):
            found.append(need)
            continue
        matched = [other for other in ids if other != step_id and fnmatch.fnmatchcase(other, need)]
        if not matched:
            raise PlanError(f"step {step_id}: needs={need!r} matches no step")
        found.extend(matched)
    return tuple(dict.fromkeys(found))
