"""One flat configuration for an experiment, the methods as recipes, and the profiles; torch-free.
A setting, a flag and a field here have one name; what a field allows and where it comes from stand beside it."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator


@dataclass(frozen=True)
class Method:
    trainer: str  # none, plain (one batch a step) or meta (cross-batch meta-step)
    average: str  # none, the last epoch, gwa over epochs 1..E, or swa: the uniform mean of epochs swa_start..E
    source: str  # of the recipe
    objective: str = "cross_entropy"  # or interpolated (Open-VCLIP), or distilled (FROSTER)
    patched: bool = False  # interpolated with CLIP at test time, by patch_ratio
    paper: Mapping = field(default_factory=dict)  # what the paper profile sets for this method alone
    # What the other profiles set for it: the choice of the study's search on base classes of the design seed, five
    # trials for every recipe (study/units.py).
    tuned: Mapping = field(default_factory=dict)
    # What the profile full sets: the choice of its trainer in the trials of 22 epochs, six for every trainer (ditto)
    long: Mapping = field(default_factory=dict)


_EXPANDED = {"temporal_module": "expanded", "trainable": "visual"}  # Open-VCLIP's learner: no parameters of its own
METHODS = {
    "frozen": Method("none", "none", "CLIP per frame, logits averaged over frames (Open-VCLIP's protocol)"),
    "finetune": Method("plain", "last", "cross-entropy only", tuned={"outer_lr": 0.01},
                       long={"outer_lr": 0.02}),
    "open_vclip": Method(
        "plain", "swa", "Open-VCLIP's code: interpolated weights, mean of epochs 2 to the last, half CLIP at test time",
        objective="interpolated", patched=True, paper=_EXPANDED, tuned={"outer_lr": 0.02},
        long={"outer_lr": 0.02, "iwr_max": 0.3},
    ),
    "froster": Method(
        "plain", "swa", "FROSTER's code: residual feature distillation of the video features, mean of epochs 2 to the "
        "last; its text branch is left out, since our text encoder is frozen",
        objective="distilled", paper=_EXPANDED, tuned={"outer_lr": 0.02}, long={"outer_lr": 0.02},
    ),
    "open_mede_no_gwa": Method("meta", "last", "the paper's ablation row without GWA", tuned={"outer_lr": 0.02},
                               long={"outer_lr": 0.04}),
    "open_mede": Method("meta", "gwa", "the paper: cross-batch meta-optimization and GWA", tuned={"outer_lr": 0.02},
                        long={"outer_lr": 0.04}),
}  # fmt: skip


class Checked(BaseModel):
    """Frozen values, checked when made: a ValueError of one line names field, value and what is allowed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, *values, **named):
        try:
            super().__init__(**dict(zip(type(self).model_fields, values)), **named)
        except ValidationError as error:
            raise ValueError(_in_one_line(error, type(self).model_fields)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _as_plain(cls, value):
        return value.item() if getattr(value, "ndim", None) == 0 else value  # a number of NumPy's

    def replace(self, **changes):
        """The same with other values of these fields, checked again."""
        return type(self)(**{**self.model_dump(), **changes})


def _in_one_line(error: ValidationError, known: Mapping) -> str:
    first = error.errors()[0]
    if not first["loc"]:  # said by a rule over several fields
        return str(first["ctx"]["error"])
    name = first["loc"][0]
    if name not in known:
        unknown = sorted({str(one["loc"][0]) for one in error.errors()} - known.keys())
        return f"unknown configuration fields {unknown}; known: {', '.join(sorted(known))}"
    return f"{name} is {first['input']!r}; {requirement(known[name], first['type'])}"


def requirement(of, kind: str = "") -> str:
    """What a field takes, in words; `kind` of pydantic's error says whether the type or the value was wrong."""
    options = get_args(of.annotation)
    limits = {name: getattr(one, name) for one in of.metadata for name in ("gt", "ge", "le") if hasattr(one, name)}
    if kind.endswith("_type") or not (options or limits):
        return "expected " + ", ".join(getattr(one, "__name__", repr(one)) for one in options or (of.annotation,))
    if options:
        return "allowed: " + ", ".join(map(repr, options))
    low = f"above {limits['gt']}, up" if "gt" in limits else limits["ge"]
    return f"allowed: {low} to {limits['le']}"


def setting(default, description: str, *, only: str = "", past: Any = None, **limits):
    # only: the trainers, objectives, temporal modules or data for which it decides a training ("test": for none);
    # past: of a setting added later, the value that reproduces what was trained before it.
    return Field(default, description=description, json_schema_extra={"only": only, "past": past}, **limits)


Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Clips = Annotated[int, Field(ge=1, le=10**7)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, le=1e3)]


class Average(Checked):
    """Which average of a trajectory is tested; epochs count from 1, epoch 0 is the learner before training."""

    rule: Literal["last", "gwa", "swa", "ema", "epoch"] = "last"
    mu: float = Field(0.0, description="gwa: in epochs", ge=-1e9, le=1e9)
    sigma: float = Field(0.0, description="gwa: in epochs, above 0", ge=0.0, le=1e9)
    start: int = Field(1, description="gwa, swa: first epoch", ge=1, le=1000)
    epoch: int = Field(0, description="of the rule epoch", ge=0, le=1000)
    decay: Share = Field(0.9, description="of ema, an epoch's")
    with_zero: bool = Field(False, description="epoch 0 takes part")
    patch: Share = Field(0.0, description="share of epoch 0 (CLIP) mixed in at the end: WiSE-FT")
    name: str = Field("", description="what records call it; no part of what is computed")


class Config(Checked):
    """Everything that defines an experiment; a description says what else than the default is meant, and why."""

    # What is learned from
    data: str = setting("synthetic", "or the path of a `path,label` CSV of real videos")
    world_seed: Seed = setting(1, "base/novel halves and clips of the world; 0 is the design seed", only="world")
    home_seed: Seed = setting(0, "home scenes; they must be those of the CLIP: 0 for the shipped one", only="world")
    rho: Share = setting(0.8, "training clips before their motion's home scene; chance is 0.25", only="world")
    train_clips: Clips = setting(3600, "of the world", only="world")
    test_clips: Clips = setting(2500, "of the world", only="test")
    num_frames: int = setting(8, "of a clip", ge=1, le=256)
    held_out: int = setting(0, "leave a third, 1 to 3, of the base classes out, to choose on", only="world", ge=0, le=3)
    shuffle_labels: bool = setting(False, "a control: each training clip gets another's label", only="world")
    data_split: str = setting("all", "rows that train: a membership of the CSV's column, as train1", only="videos")
    half: Literal["all", "base", "novel"] = setting("all", "or half of the classes", only="videos")
    shots: int = setting(0, "videos a class, drawn by seed; 0: all", only="videos", ge=0, le=10**6)
    sampling: Literal["uniform", "dense"] = setting("uniform", "or every 16th frame at 30 fps", only="videos")
    views: int = setting(1, "at test time, averaged", only="test", ge=1, le=100)
    compat: Literal["", "pyav", "torchvision"] = setting("", "view positions as the peers', off by one", only="test")
    prompts: str = setting("name", "bare class names; or templates (Open-VCLIP's 28), or a json of rephrased names")
    flip_directions: bool = setting(False, "the peers also mirror classes named left or right", only="videos")
    # The learner
    model: str = setting("mede-small", "or an open_clip ViT")
    weights: str = setting("shipped", "or an open_clip tag, or a local file")
    random_weights: bool = setting(False, "smoke runs only; written on every output")
    trainable: Literal["adapters", "visual"] = setting("adapters", "or the whole encoder, as the authors' scripts")
    temporal_module: Literal["st_adapter", "aim", "expanded"] = setting("st_adapter", "expanded: Open-VCLIP's")
    # Published: widths 384 (ST-Adapter), 192 (AIM), for a transformer of width 768; neither norm nor GELU
    adapter_width: int = setting(24, "of an adapter's bottleneck", only="st_adapter aim", ge=0, le=4096)
    adapter_form: Literal["ours", "published", "published_conv"] = setting("ours", "norm, GELU", only="st_adapter")
    border: Literal["zero", "mask"] = setting("zero", "keys beyond a clip's ends; zero: published", only="expanded")
    # Training. Paper does not say alpha, beta or delta: these are our choices for the synthetic world.
    method: Literal[tuple(METHODS)] = setting("open_mede", "the recipe", only="test")
    epochs: int = setting(8, "passes over the training clips", only="plain meta", ge=1, le=1000)
    steps_per_epoch: int = setting(0, "0: all full batches of an epoch", only="plain meta", ge=0, le=10**7)
    warmup_epochs: int = setting(2, "as the paper", only="plain meta", ge=0, le=999)
    batch_size: int = setting(32, "of all processes together", ge=2, le=65536)
    # The paper writes SGD; the authors' fork uses AdamW
    outer_lr: float = setting(5e-3, "beta, of AdamW", only="plain meta", gt=0.0, le=10.0)
    inner_lr: float = setting(0.5, "alpha, one SGD step on the support batch", only="meta", ge=0.0, le=1e6)
    query_weight: Weight = setting(1.0, "delta", only="meta")
    first_order: bool = setting(True, "or the exact second-order gradient", only="meta")
    # same, disjoint (classes) and scenes (assigned to motions otherwise; the world) are the study's controls
    pairing: Literal["next", "same", "disjoint", "scenes"] = setting("next", "query batch; the paper's", only="meta")
    weight_decay: float = setting(0.01, "biases and 1-d tensors exempt", only="plain meta", ge=0.0, le=10.0)
    max_grad_norm: float = setting(1.0, "of all gradients together", only="plain meta", gt=0.0, le=1e9)
    iwr_max: Share = setting(0.6, "Open-VCLIP: draws CLIP's share of the weights from U(0, this)", only="interpolated")
    iwr_weight: Weight = setting(0.5, "Open-VCLIP: of the loss at the interpolated weights", only="interpolated")
    distill_weight: Weight = setting(2.0, "FROSTER: of the distillation", only="distilled")
    seed: Seed = setting(0, "initialization of the adapters and order of the clips")
    # How it runs: each of these changes rounding
    micro_batch: int = setting(0, "clips in memory at once; 0: the batch", only="plain meta", ge=0, le=65536)
    precision: Literal["float32", "bf16"] = setting("float32", "of training, and of tests on videos", only="plain meta")
    inner_sync: bool = setting(True, "average g_S over processes before the inner step", only="meta")
    # Averaging; 0.0 means gwa.published_schedule: 0.68 and 0.45 of the epochs (leftovers: mu 15, sigma 10 of 22)
    gwa_mu: float = setting(0.0, "center, in epochs", only="test", ge=-1e9, le=1e9)
    gwa_sigma: float = setting(0.0, "width, in epochs", only="test", ge=0.0, le=1e9)
    swa_start: int = setting(2, "first epoch of Open-VCLIP's and FROSTER's mean", only="test", ge=1, le=1000)
    patch_ratio: Share = setting(0.5, "Open-VCLIP at test time: CLIP's share; 0.6 for ViT-L/14", only="test")

    @model_validator(mode="after")
    def _fits_together(self):
        if self.trainable == "adapters" and (self.adapter_width == 0 or self.temporal_module == "expanded"):
            cause = "temporal_module is 'expanded'" if self.adapter_width else "adapter_width is 0"
            raise ValueError(f"{cause}: with trainable='adapters' nothing would be trained; use trainable='visual'")
        if METHODS[self.method].average == "swa" and self.swa_start > self.epochs:
            raise ValueError(f"swa_start is {self.swa_start}; it must not exceed epochs ({self.epochs})")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; it must be below epochs ({self.epochs})")
        return self

    @property
    def mu(self) -> float:
        """GWA's center, in epochs."""
        return self.gwa_mu or 0.68 * self.epochs

    @property
    def sigma(self) -> float:
        """GWA's width, in epochs."""
        return self.gwa_sigma or 0.45 * self.epochs

    def average(self) -> Average:
        method = METHODS[self.method]
        if method.average == "gwa":
            return Average("gwa", mu=self.mu, sigma=self.sigma)
        if method.average == "swa":
            return Average("swa", start=self.swa_start, patch=self.patch_ratio if method.patched else 0.0)
        return Average()

    def run_settings(self) -> dict:
        """What decides this method's training, in words; who names a run adds hashes of weights and list."""
        method = METHODS[self.method]
        kind = "world" if self.data == "synthetic" else "videos"
        matters = {"", kind, method.trainer, method.objective, self.temporal_module}
        settings = {"trainer": method.trainer, "objective": method.objective}
        for name, of in type(self).model_fields.items():
            value, only, past = getattr(self, name), *of.json_schema_extra.values()
            if matters.intersection(only.split(" ")) and (past is None or value != past):
                settings[name] = value
        del settings["weights"]
        return settings | {"data": kind, "prompts": prompts_id(self.prompts)}


def prompts_id(prompts: str) -> str:
    """A name for a prompt set by what is in it: its own, or its file's hash."""
    if prompts in ("name", "templates") or not Path(prompts).is_file():
        return prompts
    return hashlib.sha256(Path(prompts).read_bytes()).hexdigest()[:12]


def is_random(weights: str) -> bool:
    """Whether weights say that they were never trained: `random`, or a name of the hub such as me/tiny-random-clip."""
    return bool(re.search(r"\brandom\b", weights))


PATCHED = Average("last", patch=0.5, name="patched")  # half CLIP: WiSE-FT
SPLITS = ("base", "novel")  # the halves of a set's classes
OUT_OF_CONTEXT = ("scene", "noise", "stripes")  # the world's swapped backgrounds


class EvalSet(Checked):
    """One test: which clips, how they are shown, and with which texts; a record of accuracy is named by it."""

    set: str = Field("source", description="of the synthetic world; or what results call a data set of real videos")
    half: str = Field("base", description="base, novel, all, or a fold of the world: kept_K, pseudo_novel_K")
    part: int | str = Field(1, description="draw of the world's clips; or the split of a list, such as test1")
    context: str = Field("in", description="or an out-of-context background")
    # Of frames; reversed clips are labelled with the reversed action
    order: Literal["forward", "shuffled", "reversed", "single"] = Field("forward", description="of frames")
    clips: Clips = Field(2500, description="of the synthetic world")
    views: int = Field(1, description="of real videos, averaged", ge=1, le=100)
    prompts: str = Field("name", description="as of the configuration")
    data: str = Field("", description="real videos: the list of videos, or of frame folders (SCUBA)")
    root: str = Field("", description="real videos: the folder of those frame folders")
    classes_of: str = Field("", description="SCUBA: the list of videos whose classes its labels count")


# What a profile changes. smoke: everything, tiny (the tests run it); cpu: one seed on two cores, an epoch being
# half of the clips, so that 8 epochs are 448 steps; full: trained to the plateau, 2,464 steps, as the study chose
# (notebook 40), with the center and width that the authors' leftovers hold for 22 epochs; paper: real videos under the
# published protocols. There, from Open-VCLIP's published recipe: 22 epochs, 2 of them warm-up, AdamW with
# weight decay 0.01, clipping at 1, mixed precision (theirs is float16; bfloat16 needs no scaling of the loss), 8 frames
# every 16th, 3 views, 28 templates; batch 32 from the authors' sibling method. Paper does not say alpha and beta: beta
# is ours for adapters (whole encoders keep the published 3.33e-6, see load_config), alpha is ours too, and neither was
# tried on real data.
PROFILES: dict[str, dict] = {
    "smoke": {"epochs": 2, "warmup_epochs": 1, "train_clips": 288, "test_clips": 144},
    "cpu": {"steps_per_epoch": 56},
    "full": {"epochs": 22, "warmup_epochs": 2, "steps_per_epoch": 112, "gwa_mu": 15.0, "gwa_sigma": 10.0},
    "paper": {
        "model": "ViT-B-16-quickgelu", "weights": "openai", "adapter_width": 384, "adapter_form": "published",
        "epochs": 22, "batch_size": 32, "outer_lr": 5e-4, "inner_lr": 0.01, "sampling": "dense", "views": 3,
        "prompts": "templates", "precision": "bf16",
    },
}  # fmt: skip
WHOLE_ENCODER_LR = 3.33e-6  # Open-VCLIP's, for batches of 64


def load_config(profile: str = "cpu", **settings) -> Config:
    """The effective configuration of a profile, with some settings of one's own.

    The `paper` profile also takes what is published for the method and the trained part: expanded attention and the
    whole encoder for Open-VCLIP and FROSTER, its learning rate for whole encoders, the width of AIM's adapters, and
    12 epochs for few-shot training (FROSTER's scripts for base-to-novel).
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}; allowed: {', '.join(PROFILES)}")
    chosen = dict(PROFILES[profile])
    if recipe := METHODS.get(str(settings.get("method", "open_mede"))):
        chosen |= {"paper": recipe.paper, "full": recipe.long}.get(profile, recipe.tuned)
    if settings.get("data", "synthetic") != "synthetic":
        chosen.pop("steps_per_epoch", None)  # half an epoch is a saving on the synthetic world alone
    if profile == "paper":
        if {**chosen, **settings}.get("trainable") == "visual":
            chosen["outer_lr"] = WHOLE_ENCODER_LR
        if {**chosen, **settings}.get("temporal_module") == "aim":
            chosen["adapter_width"] = 192
        if settings.get("shots"):
            chosen["epochs"] = 12
    return Config(**{**chosen, **settings})


def diff(config: Config, reference: Config | None = None) -> dict[str, tuple]:
    """How a configuration differs from a reference (default: the defaults): {field: (reference value, value)}."""
    pairs = zip(reference or Config(), config, strict=True)
    return {name: (before, value) for (name, before), (_, value) in pairs if before != value}
