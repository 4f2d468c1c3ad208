"""Ask and it is there: trained runs and scores, named by a hash of settings, CLIP weights, data and code, so that a
changed method never shows an old number. Torch is loaded only where something is made or weights are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from .config import METHODS, Average, Config, EvalSet, prompts_id
from .files import ASSETS, append_line, made_by, progress, read_lines, replace_folder, run_lock, say, set_threads
from .names import check_disk, code_files, content_hash, digest, source_hash
from .runs import Run, clips_at_once, default_folder, learner_for, room_of, speed_up, stale_runs, teacher_for, trains
from .schedule import steps_of

if TYPE_CHECKING:
    import pandas as pd

    from .learner import VideoLearner

SHIPPED = ASSETS / "shipped"
ASK_FROM_S = 600.0  # a training that costs more, where older code has made one of the same settings, needs a word
ESTIMATE_FROM_S = 10.0
STALE_BYTES = 5e9


class NotMadeError(RuntimeError):
    """A result is not there, and this workspace may not make it."""


class OlderCodeError(RuntimeError):
    """A run of these settings exists under older code, and a new one is costly: the user decides."""


def _code_of_data(config: Config) -> str:
    return "world.synthetic" if config.data == "synthetic" else "video.protocol"


class Workspace:
    """One folder of runs and scores, for notebooks, the batch run, the study and the command line.

    Args:
        folder: default: ``runs/`` of the repository, else ``mede_runs`` here (said once).
        shipped: take runs and scores that ship with the package; under ``make reproduce`` they are ignored.
        make: train and score what is not there; else asking for it is an error that names it.
        older: where a run of the same settings was made by older code and a new one takes over 10 minutes: ``ask``
            (stop and say what it costs), ``use`` (it is marked) or ``retrain``.
        device: ``cpu`` or ``cuda``.
        processes: more than one trains with torchrun on this machine.
        num_workers: of data loaders.
        skip_bad: go on without test videos that cannot be read (they are counted), instead of refusing them.

    Raises:
        ValueError: an unknown value of ``older``.
    """

    def __init__(
        self, folder: str | os.PathLike | None = None, *, shipped: bool | None = None, make: bool | None = None,
        older: str | None = None, device: str = "cpu", processes: int = 1, num_workers: int = 0, skip_bad: bool = False,
    ):  # fmt: skip
        given = os.environ.get
        self.folder = Path(str(folder)) if folder else default_folder()
        # `make reproduce` says the next three to its notebooks by the environment.
        self.shipped = given("MEDE_SHIPPED") != "0" if shipped is None else shipped
        self.make = given("MEDE_MAKE") != "0" if make is None else make
        self.older = older or given("MEDE_OLDER") or "ask"
        if self.older not in ("ask", "use", "retrain"):
            raise ValueError(f"older is {self.older!r}; allowed: ask, use, retrain")
        self.device, self.processes, self.num_workers, self.skip_bad = device, processes, num_workers, skip_bad
        self._scored: tuple = ("", None, None)  # the run whose learner was built last to be scored, and theta_0

    # -------------------------------------------------------------------------------- runs
    def run_name(self, config: Config, method: Callable | None = None) -> str:
        """``KIND-SETTINGS-CODE``: what is trained, a hash of settings, CLIP weights and data, and one of the code."""
        from .weights import weights_hash

        recipe, clip = METHODS[config.method], weights_hash(config.model, config.weights, config.random_weights)
        kind = "frozen" if not trains(config) else recipe.trainer
        kind = kind if recipe.objective == "cross_entropy" else recipe.objective
        data = content_hash(config.data) if config.data != "synthetic" and trains(config) else ""
        settings = config.run_settings()
        if not trains(config):  # of frozen CLIP nothing else decides
            names = ("model", "num_frames", *(("random_weights", "seed") if config.random_weights else ()))
            settings = {name: settings[name] for name in names}
        settings = {**settings, "clip": clip, "data": data}
        return f"{'own' if method else kind}-{digest(settings)[:10]}-{self._code(config, method)}"

    def _files(self, config: Config) -> dict[str, str]:
        return code_files(("train", _code_of_data(config))) if trains(config) else code_files(("learner",))

    def _code(self, config: Config, method: Callable | None = None) -> str:
        files = self._files(config)
        return digest([files, source_hash(method)] if method else files)[:8]

    def run(self, config: Config, method: Callable | None = None, *, again: bool = False) -> Run:
        """A finished training of a configuration: loaded, else shipped, else made once under a lock.

        Args:
            config: what is trained; methods that differ only in how epochs are averaged share one run.
            method: a method of your own, from a notebook cell: see ``fit``; it counts by its source.
            again: train it once more; an old one is kept until the new is finished.

        Raises:
            ValueError: the method does not train.
            NotMadeError: it is not there, and ``make`` is off.
            OlderCodeError: see ``older``.
            RuntimeError: the code on disk is not the code that this process runs, or torchrun failed.
        """
        if not trains(config) and method is None:
            raise ValueError(f"method is {config.method!r}, which does not train; ask for its scores")
        check_disk(self._files(config))
        name = self.run_name(config, method)
        folder, ranks = self.folder / name, "LOCAL_RANK" in os.environ  # under torchrun no rank may leave early
        places = [folder, SHIPPED / name] if self.shipped else [folder]
        there = [place for place in places if (place / "done.json").is_file() and not again and not ranks]
        before = [] if there else self._older(name)
        if there:
            return Run(there[0], config, shipped=there[0] != folder)
        if before and self.older == "use":
            return Run(before[-1], config, older=True)
        if not self.make:
            raise NotMadeError(f"run {name} ({_words(config)}) is not in {self.folder}, and nothing is made here")
        if self.processes > 1:
            from .distributed import torchrun

            flags = ("--runs", str(self.folder), "--device", self.device, *(("--again",) if again else ()))
            torchrun(config, self.processes, (*flags, "--num-workers", str(self.num_workers)))
            return Run(folder, config)
        self._make(config, method, folder, again, before)
        return Run(folder, config)

    def _make(self, config: Config, method, folder: Path, again: bool, before: Sequence[Path]) -> None:
        from .distributed import rank, wait_for_all

        # The lock lies beside the run: a folder that is replaced cannot hold its own.
        with run_lock(self.folder / ".locks" / folder.name) if rank() == 0 else nullcontext():
            wait_for_all()
            if again:
                new = folder.with_name(f"{folder.name}.new")
                self._train(config, method, new, [])
                if rank() == 0:
                    replace_folder(new, folder)
            elif not (folder / "done.json").is_file():  # somebody else may have made it while we waited
                self._train(config, method, folder, before)
            wait_for_all()
        if (size := sum(size for size, _ in stale_runs(self.folder).values())) > STALE_BYTES:
            say(f"{self.folder} holds {size / 1e9:.0f} GB of runs by older code; `mede clean` lists and removes them")

    def _older(self, name: str) -> list[Path]:
        """Finished runs of the same settings under other code, oldest first."""
        found = self.folder.glob(f"{name.rpartition('-')[0]}-*/done.json")
        return [done.parent for done in sorted(found, key=lambda path: path.stat().st_mtime)]

    def _train(self, config: Config, method, folder: Path, before: Sequence[Path]) -> None:
        from .train import fit

        set_threads()  # or the bits of a run would depend on the machine's number of cores
        learner, teacher = self.fresh_learner(config), teacher_for(config, self.device)
        clips = room_of(config).training_clips(config, learner.image_size)
        passes = steps_of(config, len(clips)) * config.epochs * (2 if METHODS[config.method].trainer == "meta" else 1)
        if before or "MEDE_SESSION" not in os.environ:  # nobody watches a job of `make reproduce`
            self._estimate(config, learner, clips, before, passes)
        facts = {"settings": config.run_settings(), "code": self._code(config, method), "files": self._files(config)}
        try:
            fit(speed_up(learner, config), clips, config, folder, texts=_texts(config.prompts, clips.class_names),
                teacher=teacher and speed_up(teacher, config), method=method, num_workers=self.num_workers,
                facts={**facts, **made_by(device=self.device)})  # fmt: skip
        except KeyboardInterrupt:
            say(f"interrupted: {folder.name} keeps its last whole epoch; ask for it again and it goes on from there")
            raise

    def fresh_learner(self, config: Config) -> VideoLearner:
        """The learner before training; class-text features are kept below the workspace."""
        learner = learner_for(config, self.device)
        learner.text_cache = self.folder / "text_features"
        return learner

    def _estimate(self, config: Config, learner, clips, before: Sequence[Path], passes: int) -> None:
        """Say what a training will cost before it starts, from one measured pass; stop where older code has done it."""
        from .report.costs import seconds_of_a_pass

        cost = passes * seconds_of_a_pass(learner, clips, config)
        if before and self.older == "ask" and cost > ASK_FROM_S:
            raise OlderCodeError(
                f"{_words(config)} was trained by older code: {before[-1].name}; changed since: "
                f"{', '.join(self._changed(config, before[-1]))}. Training it again takes about {cost / 60:.0f} min. "
                'Choose Workspace(older="use"), which marks every number, or Workspace(older="retrain")'
            )
        if cost > ESTIMATE_FROM_S:
            say(f"training {_words(config)}: about {cost / 60:.1f} min, then it is there for all notebooks")

    def _changed(self, config: Config, folder: Path) -> list[str]:
        theirs, mine = Run(folder, config).facts.get("files", {}), self._files(config)
        return sorted(module for module in {*theirs, *mine} if theirs.get(module) != mine.get(module))

    # -------------------------------------------------------------------------------- learners and scores
    def learner(self, config: Config, average: Average | None = None) -> VideoLearner:
        """The learner with the weights that are tested, of the method's own average or of another one."""
        learner = self.fresh_learner(config)
        return self._load(learner, _theta_0(learner, config), config, average or config.average())

    def _load(self, learner: VideoLearner, theta_0: Mapping, config: Config, average: Average) -> VideoLearner:
        if trains(config):
            from .averages import averaged

            learner.load_trainable(averaged(average, self.run(config).epoch, theta_0, config.epochs))
        return learner

    def _tested(self, config: Config, average: Average) -> VideoLearner:
        """As `learner`; of a run scored average by average it is built once: at full size that takes seconds."""
        name = self.run_name(config)
        if self._scored[0] != name:
            self._scored = ("", None, None)  # before the next one needs the memory
            learner = speed_up(self.fresh_learner(config), config)
            self._scored = name, learner, _theta_0(learner, config)
        return self._load(*self._scored[1:], config, average)

    def scores(
        self, config: Config, eval_sets: Sequence[EvalSet], average: Average | None = None, *, again: bool = False
    ) -> list[dict]:
        """Top-1 records of a method on tests: loaded, else shipped, else measured once.

        Args:
            config: what is tested; it is trained where it is not there yet.
            average: of the trajectory; default: the method's own.

        Returns:
            a record for each test, in order: what was tested and how (``settings``, ``code``, ``weights``, ``run``),
            ``value`` in percent, ``n`` clips and ``correct``, their bits.
        """
        run_name, average, older = self.run_name(config), average or config.average(), False
        if self.older == "use" and trains(config):
            run = self.run(config)
            run_name, older = run.name, run.older
        check_disk(self._score_files(config))
        keys = self.score_keys(config, eval_sets, average)
        found = {} if again else self._stored(run_name)
        if missing := [(key, one) for key, one in zip(keys, eval_sets) if key not in found]:
            if not self.make:
                which = f"{missing[0][1]}, average {average.name or average.rule}"
                raise NotMadeError(f"scores of {_words(config)} ({run_name}) on {which} are not in {self.folder}")
            with run_lock(self.folder / ".locks" / f"scores-{run_name}"):
                found = found if again else self._stored(run_name)
                todo = {key: one for key, one in missing if key not in found}
                found |= self._measure(config, average, todo, run_name) if todo else {}
        about = {"method": config.method, "run": run_name, "seed": config.seed, "world_seed": config.world_seed,
                 "home_seed": config.home_seed, "rho": config.rho, "average": average.name, "mu": average.mu,
                 "sigma": average.sigma, "settings": config.run_settings(), "older": older}  # fmt: skip
        return [{**found[key], **about} for key in keys]

    def score_keys(self, config: Config, eval_sets: Sequence[EvalSet], average: Average | None = None) -> list[str]:
        """What names each score beside its run: the test, the average and the code of testing."""
        code = digest(self._score_files(config))[:8]
        return [_score_key(config, one, average or config.average(), code) for one in eval_sets]

    def _score_files(self, config: Config) -> dict[str, str]:
        trained = ("train",) if trains(config) else ()
        return code_files(("scoring", "averages", _code_of_data(config), *trained))

    def _stored(self, run_name: str) -> dict[str, dict]:
        """{key: record} of those that are there; a shipped one is marked."""
        places = (SHIPPED, self.folder) if self.shipped else (self.folder,)
        lines = ((place, line) for place in places for line in read_lines(place / "scores" / f"{run_name}.jsonl"))
        return {line["key"]: {**line, "shipped": place == SHIPPED} for place, line in lines}

    def _measure(self, config: Config, average: Average, todo: Mapping, run_name: str) -> dict[str, dict]:
        from .report.metrics import pack_correct
        from .scoring import Reordered, evaluate

        set_threads()
        learner, room, made, how = self._tested(config, average), room_of(config), {}, {}
        videos = config.data != "synthetic"
        if videos:
            how = {"num_workers": self.num_workers, "precision": config.precision,
                   "batch_size": clips_at_once(learner, config)}  # fmt: skip
        code = digest(self._score_files(config))[:8]
        for key, one in progress(todo.items(), f"scoring {_words(config)}", len(todo)):
            clips = room.test_clips(config, one, learner.image_size, **({"skip_bad": self.skip_bad} if videos else {}))
            if not videos and one.order in ("shuffled", "single"):
                clips = Reordered(clips, one.order)
            result = evaluate(learner, clips, texts=_texts(one.prompts, clips.class_names), **how)
            record = {"key": key, "set": one.set, "split": one.half, "part": one.part, "context": one.context,
                      "order": one.order, "metric": "top1", "value": round(result.top1, 6), "n": len(result.labels),
                      "correct": pack_correct(result.correct), "weights": learner.weights_id, "code": code,
                      **(room.facts(config, one, clips) if videos else {}), **made_by(device=self.device)}  # fmt: skip
            append_line(self.folder / "scores" / f"{run_name}.jsonl", record)
            made[key] = {**record, "shipped": False}
        return made

    # -------------------------------------------------------------------------------- old and new
    def history(self, config: Config) -> pd.DataFrame:
        """All runs of these settings, under whatever code: commit, files that differ from now, and their scores."""
        import pandas as pd

        rows = []
        for folder in self._older(self.run_name(config)):
            facts = Run(folder, config).facts
            about = {"run": folder.name, "commit": facts["commit"], "seconds": facts["seconds"],
                     "changed since": ", ".join(self._changed(config, folder))}  # fmt: skip
            names = ("set", "split", "part", "context", "order", "value", "n")
            scores = read_lines(self.folder / "scores" / f"{folder.name}.jsonl") or [{}]
            rows += [{**about, **{name: score.get(name) for name in names}} for score in scores]
        return pd.DataFrame(rows)


def _score_key(config: Config, one: EvalSet, average: Average, code: str) -> str:
    """What names a score beside its run: the test, the clips' own settings, the average and the code of testing."""
    what = {name: value for name, value in one.model_dump().items() if name not in ("data", "root", "classes_of")}
    what["prompts"] = prompts_id(one.prompts)
    if config.data == "synthetic":
        what |= {"world": [config.world_seed, config.home_seed, config.num_frames]}
    else:
        what |= {name: getattr(config, name) for name in ("sampling", "compat", "num_frames")}
        what |= {name: content_hash(path) for name in ("data", "classes_of") if (path := getattr(one, name))}
        what |= {"precision": config.precision} if config.precision != "float32" else {}
    shares = {name: value for name, value in average.model_dump().items() if name != "name"}
    return digest([what, shares if trains(config) else None, code])[:16]


def _theta_0(learner: VideoLearner, config: Config) -> dict:
    """What a fresh learner's averages begin at; nothing where none is formed: of a whole encoder it is large."""
    return {name: tensor.cpu().clone() for name, tensor in learner.trainable_state().items() if trains(config)}


def _words(config: Config) -> str:
    return f"{config.method} (rho {config.rho:g}, seed {config.seed})" if config.data == "synthetic" else config.method


def _texts(prompts: str, class_names: Sequence[str]) -> list | None:
    if prompts == "name":
        return None
    from .video.classes import load_prompts

    return load_prompts(prompts).texts(class_names)
