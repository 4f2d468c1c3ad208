"""The verbs of the command line: functions whose parameters are the flags and whose docstring is their help; and what
is shown of their answers. Torch-free."""

import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from json import dumps
from pkgutil import resolve_name
from shutil import get_terminal_size
from typing import Annotated, get_args, get_origin

import typer
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ..config import Config, requirement


# ------------------------------------------------------------------------------------ what a verb shows
def _show(answer) -> int:
    """A number is the exit code; anything else is printed, by one process of several, and 1 where it has problems."""
    if isinstance(answer, int):
        return answer
    if answer is not None and os.environ.get("RANK", "0") == "0":
        print(answer.report() if hasattr(answer, "report") else answer)
    return 1 if getattr(answer, "problems", None) else 0


def _show_ranking(answers: Sequence[Mapping], *, json: bool = False) -> int:
    """Exit code 1 says that some of several videos could not be read; the answers name them."""
    from ..video.predict import as_text

    width = get_terminal_size().columns if sys.stdout.isatty() else 0
    _show(dumps(answers if answers[1:] else answers[0], indent=1) if json else as_text(answers, width))
    return 1 if any("error" in one for one in answers) else 0


def _show_findings(findings) -> int:
    lines = [f"{'!!' if one.fault else '  '} {one.topic:20} {one.text}" for one in findings]
    faults = sum(one.fault for one in findings)
    _show("\n".join([*lines, f"{faults} to mend (marked !!)" if faults else "all well"]))
    return 1 if faults else 0


# ------------------------------------------------------------------------------------ the command
VERBS: dict = {  # verb: (what it does, where its function is, how its answer is shown)
    "train": ("train a method, or go on with its run", "mede_core.batch.verbs:train", _show),
    "evaluate": ("test a method", "mede_core.batch.verbs:evaluate", _show),
    "predict": ("name the action in a video", "mede_core.video.predict:answer", _show_ranking),
    "bias": ("say how static a video model is", "mede_core.video.bias:bias", _show),
    "prepare": ("make a list of a dataset's videos", "mede_core.video.prepare:prepare", _show),
    "scuba": ("build out-of-context clips", "mede_core.video.scuba.build:build_scuba", _show),
    "study": ("measure what the study lacks", "mede_core.batch.verbs:study", _show),
    "world": {
        "pretrain": ("pretrain a small CLIP", "mede_core.batch.verbs:pretrain", _show),
        "card": ("measure the small CLIP that ships", "mede_core.batch.verbs:card", _show),
        "checks": ("measure whether the world is a fair experiment", "mede_core.batch.verbs:checks", _show),
    },
    "cost": ("time training and testing", "mede_core.batch.verbs:cost", _show),
    "reproduce": ("run the notebooks", "mede_core.batch.reproduce:reproduce", _show),
    "ship": ("make what ships with the package", "mede_core.batch.verbs:ship_or_restamp", _show),
    "clean": ("list runs that no question finds, and remove them", "mede_core.batch.verbs:clean", _show),
    "doctor": ("say what is here: versions, weights, devices", "mede_core.batch.doctor:examine", _show_findings),
}


# ------------------------------------------------------------------------------------ a function as a verb
def as_verb(function: Callable, show: Callable) -> tuple[Callable, set[str]]:
    """A function for typer that shows what `function` answers, and which of its flags take several values."""
    own, shown = (list(inspect.signature(one, eval_str=True).parameters.values()) for one in (function, show))
    shown = [one for one in shown if one.kind is one.KEYWORD_ONLY]
    text, _, arguments = inspect.cleandoc(function.__doc__).partition("\nArgs:\n")
    said = dict(re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", arguments, re.MULTILINE))
    parameters, lists = [], set()
    for one in (*own, *shown):
        if one.kind is one.VAR_KEYWORD:  # every field of the configuration
            parameters += [_flag(name, of, _described(of), None) for name, of in Config.model_fields.items()]
        else:
            of = FieldInfo.from_annotation(one.annotation)
            parameters.append(_flag(one.name, of, said.get(one.name, of.description or ""), one.default, one.kind))
            lists |= {_dashed(one.name)} if _item(of) and one.kind is one.KEYWORD_ONLY else set()

    def verb(**given):
        how = {one.name: given.pop(one.name) for one in shown}
        first = [given.pop(one.name) for one in own if one.kind is one.POSITIONAL_ONLY]
        return show(function(*first, **given), **how)

    verb.__signature__, verb.__doc__ = inspect.Signature(parameters), text
    return verb, lists


def _described(of: FieldInfo) -> str:
    limited = of.metadata and not get_args(of.annotation)
    return f"{of.description}; {requirement(of)}" if limited else of.description


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def _item(of: FieldInfo) -> type | None:
    return get_args(of.annotation)[0] if get_origin(of.annotation) in (list, tuple, Sequence) else None


def _flag(name: str, of: FieldInfo, text: str, default, kind=inspect.Parameter.KEYWORD_ONLY) -> inspect.Parameter:
    about = {"help": " ".join(text.split()), "show_default": default not in ("", (), None, False)}
    if bool in (of.annotation, *get_args(of.annotation)):
        annotation = Annotated[bool | None, typer.Option(*([_dashed(name)] if default is False else []), **about)]
    else:
        single = FieldInfo.from_annotation(_item(of)) if _item(of) else of
        about |= {"metavar": _metavar(single), "parser": partial(read_value, single, default)}
        make = typer.Option
        if kind is inspect.Parameter.POSITIONAL_ONLY:
            make, about["metavar"] = typer.Argument, name.upper()
        annotation = Annotated[list[str] if _item(of) else str | None, make(**about)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _metavar(of: FieldInfo) -> str:
    named = [one for one in of.metadata if isinstance(one, str)]
    options = [one for one in get_args(of.annotation) if isinstance(one, str) and one]
    plain = getattr(of.annotation, "__name__", "str").upper().replace("STR", "TEXT")
    return "|".join(named or options) or plain


def command(verbs: Mapping, arguments: Sequence[str]) -> int:
    """Run a verb of {name: (summary, "module:function", show), or a mapping of further verbs}; the exit code."""
    app, lists = _group(verbs, list(arguments), "Open-MeDe. `mede VERB --help` says more; --offline: no network.")
    return app(_spread(arguments, lists), prog_name="mede", standalone_mode=False) or 0


def _group(verbs: Mapping, arguments: Sequence[str], text: str) -> tuple[typer.Typer, set[str]]:
    app, lists = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False), set()
    app.callback(help=text)(lambda: None)
    for name, about in verbs.items():
        asked = arguments[:1] == [name]
        if isinstance(about, Mapping):
            below, found = _group(about, arguments[1:] if asked else [], ", ".join(about))
            app.add_typer(below, name=name)
            lists |= found
        elif asked:  # of all verbs its function alone is imported
            verb, lists = as_verb(resolve_name(about[1]), about[2])
            app.command(name)(verb)
        else:
            app.command(name, help=about[0])(lambda: None)
    return app, lists


def _spread(arguments: Sequence[str], lists: set[str]) -> list[str]:
    """`--classes a b` as `--classes a --classes b`, which is how typer reads several values."""
    read, flag = [], ""
    for one in arguments:
        if one.startswith("--"):
            flag = one
        elif flag in lists and read[-1] != flag:
            read.append(flag)
        read.append(one)
    return read


def read_value(of: FieldInfo, default, text):
    """A flag's text as a value of its type, or one line that says what is allowed; a default is taken as it is."""
    if text == default:
        return text
    try:
        kind = Annotated[(of.annotation, *of.metadata, None)]
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(text)
    except ValidationError as error:
        first = error.errors()[0]
        kind = first["type"].replace("_parsing", "_type")
        why = first["ctx"]["error"] if kind == "value_error" else requirement(of, kind)
        raise typer.BadParameter(f"{text!r}; {why}") from None
