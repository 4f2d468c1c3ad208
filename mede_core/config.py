"""One flat configuration for an experiment, the methods as recipes, and the profiles; torch-free.

A notebook parameter, a command-line flag and a field here have the same name. ``Config.training_hash`` covers what
changes a training run, so methods that differ only in how epochs are averaged share one trajectory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields


@dataclass(frozen=True)
class Method:
    """How a method trains and which weights it is evaluated with.

    Attributes:
        trainer: ``none``, ``plain`` (one batch a step) or ``meta`` (cross-batch meta-step).
        average: ``none``, ``last`` epoch, ``gwa`` (Gaussian weight averaging over epochs 1..E) or ``swa`` (uniform
            mean of epochs ``swa_start``..E).
        source: where the recipe comes from.
        objective: ``cross_entropy``, ``interpolated`` (Open-VCLIP) or ``distilled`` (FROSTER).
        patched: interpolated with CLIP at test time, by ``patch_ratio``.
        paper: fields of :class:`Config` that the ``paper`` profile sets for this method alone.
        tuned: fields that the other profiles set for it: the choice of the study's search on base classes of the
            design seed, five trials for every recipe (``study/units.py``).
    """

    trainer: str
    average: str
    source: str
    objective: str = "cross_entropy"
    patched: bool = False
    paper: Mapping = field(default_factory=dict)
    tuned: Mapping = field(default_factory=dict)


_EXPANDED = {"temporal_module": "expanded", "trainable": "visual"}  # Open-VCLIP's learner: no parameters of its own
METHODS = {
    "frozen": Method("none", "none", "CLIP per frame, logits averaged over frames (Open-VCLIP's protocol)"),
    "finetune": Method("plain", "last", "cross-entropy only", tuned={"outer_lr": 0.01}),
    "open_vclip": Method(
        "plain", "swa", "Open-VCLIP's code: interpolated weights, mean of epochs 2 to the last, half CLIP at test time",
        objective="interpolated", patched=True, paper=_EXPANDED, tuned={"outer_lr": 0.02},
    ),
    "froster": Method(
        "plain", "swa", "FROSTER's code: residual feature distillation of the video features, mean of epochs 2 to the "
        "last; its text branch is left out, since our text encoder is frozen",
        objective="distilled", paper=_EXPANDED, tuned={"outer_lr": 0.02},
    ),
    "open_mede_no_gwa": Method("meta", "last", "the paper's ablation row without GWA", tuned={"outer_lr": 0.02}),
    "open_mede": Method("meta", "gwa", "the paper: cross-batch meta-optimization and GWA", tuned={"outer_lr": 0.02}),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Everything that defines an experiment; see the comments for units and provenance."""

    # What is learned from
    data: str = "synthetic"  # or the path of a `path,label` CSV of real videos
    world_seed: int = 1  # base/novel halves and clips of the synthetic world; 0 is the design seed
    home_seed: int = 0  # home scenes; they must be those of the CLIP: 0 for the shipped one
    rho: float = 0.8  # share of training clips before their motion's home scene; chance is 0.25
    train_clips: int = 3600
    test_clips: int = 2500
    num_frames: int = 8
    held_out: int = 0  # 1, 2 or 3: a third of the base classes is left out of training, to choose settings on
    shuffle_labels: bool = False  # a control: each training clip gets another's label
    # Real videos only: which rows of the CSV, which frames, which prompts
    data_split: str = "all"  # rows that train: a membership of the CSV's split column, such as train1
    half: str = "all"  # or base, or novel: half of the classes
    shots: int = 0  # videos a class, drawn by seed; 0: all
    sampling: str = "uniform"  # or dense: a window of num_frames every 16th frame at 30 fps
    views: int = 1  # at test time, averaged
    compat: str = ""  # or pyav, or torchvision: the view positions of the peers' code, off by one
    prompts: str = "name"  # bare class names; or templates (the 28 of Open-VCLIP), or a json of rephrased names
    flip_directions: bool = False  # the peers also mirror classes whose name says left or right
    # The learner
    model: str = "mede-small"  # or an open_clip ViT
    weights: str = "shipped"  # or an open_clip tag, or a local file
    random_weights: bool = False  # smoke runs only; written on every output
    trainable: str = "adapters"  # or visual: the whole encoder, as the authors' scripts suggest
    temporal_module: str = "st_adapter"  # or aim, or expanded (Open-VCLIP's attention, without parameters)
    adapter_width: int = 24  # published: 384 (ST-Adapter), 192 (AIM), for a transformer of width 768
    adapter_form: str = "ours"  # of the ST-Adapter; or published (no norm, no GELU), or published_conv
    border: str = "zero"  # of expanded attention: zero keys at a clip's ends as published, or mask
    # Training. Paper does not say alpha, beta or delta: these are our choices for the synthetic world.
    method: str = "open_mede"
    epochs: int = 8
    steps_per_epoch: int = 0  # 0: all full batches of an epoch
    warmup_epochs: int = 2  # as the paper
    batch_size: int = 32
    outer_lr: float = 5e-3  # beta, of AdamW (the paper writes SGD; the authors' fork uses AdamW)
    inner_lr: float = 0.5  # alpha, one SGD step on the support batch
    query_weight: float = 1.0  # delta
    first_order: bool = True
    pairing: str = "next"  # query batch: the next one (the paper), the same, or one of disjoint classes
    weight_decay: float = 0.01  # biases and 1-d tensors exempt
    max_grad_norm: float = 1.0
    iwr_max: float = 0.6  # Open-VCLIP: the share of CLIP in the interpolated weights is drawn from U(0, iwr_max)
    iwr_weight: float = 0.5  # Open-VCLIP: of the loss at the interpolated weights
    distill_weight: float = 2.0  # FROSTER: of the distillation
    seed: int = 0  # initialization of the adapters and order of the clips
    # How it runs; batch_size is that of all processes together
    micro_batch: int = 0  # clips in memory at once, at the cost of one more forward; 0: the batch
    precision: str = "float32"  # or bf16
    inner_sync: bool = True  # average g_S over processes before the inner step; False: each its own inner step
    # Averaging; 0.0 means gwa.published_schedule: 0.68 and 0.45 of the epochs (leftovers: mu 15, sigma 10 of 22)
    gwa_mu: float = 0.0
    gwa_sigma: float = 0.0
    swa_start: int = 2  # Open-VCLIP and FROSTER average epochs 2 to the last
    patch_ratio: float = 0.5  # Open-VCLIP at test time: share of CLIP's weights; 0.6 for ViT-L/14

    def __post_init__(self):
        for one in fields(self):
            value, expected = getattr(self, one.name), type(one.default)
            if expected is float and type(value) is int:
                object.__setattr__(self, one.name, float(value))
            elif type(value) is not expected:
                raise ValueError(f"{one.name} is {value!r}; expected {expected.__name__}")
            if expected is float and not math.isfinite(getattr(self, one.name)):
                raise ValueError(f"{one.name} is {value!r}; it must be finite")
        for name, low, high in RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; allowed: {low} to {high}")
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; allowed: {', '.join(METHODS)}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(map(repr, allowed))}")
        if self.trainable == "adapters" and (self.adapter_width == 0 or self.temporal_module == "expanded"):
            cause = "temporal_module is 'expanded'" if self.adapter_width else "adapter_width is 0"
            raise ValueError(f"{cause}: with trainable='adapters' nothing would be trained; use trainable='visual'")
        if METHODS[self.method].average == "swa" and self.swa_start > self.epochs:
            raise ValueError(f"swa_start is {self.swa_start}; it must not exceed epochs ({self.epochs})")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; it must be below epochs ({self.epochs})")
        for name in ("outer_lr", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be above 0")

    @property
    def mu(self) -> float:
        """GWA's center, in epochs."""
        return self.gwa_mu or 0.68 * self.epochs

    @property
    def sigma(self) -> float:
        """GWA's width, in epochs."""
        return self.gwa_sigma or 0.45 * self.epochs

    def average(self) -> Average:
        """The average that the method is tested with."""
        method = METHODS[self.method]
        if method.average == "gwa":
            return Average("gwa", mu=self.mu, sigma=self.sigma)
        if method.average == "swa":
            return Average("swa", start=self.swa_start, patch=self.patch_ratio if method.patched else 0.0)
        return Average()

    def training_fields(self) -> dict:
        """The fields that change a training run: all but test size, averaging, and the method's name."""
        values = asdict(self)
        method = METHODS[self.method]
        unused = {"method", *_TEST_FIELDS}
        if method.trainer != "meta":
            unused |= {"inner_lr", "query_weight", "first_order", "pairing", "inner_sync"}
        if method.objective != "interpolated":
            unused |= {"iwr_max", "iwr_weight"}
        if method.objective != "distilled":
            unused |= {"distill_weight"}
        kept = {name: value for name, value in values.items() if name not in unused}
        return {"trainer": method.trainer, "objective": method.objective, **kept}

    def training_hash(self) -> str:
        """12 hex digits that name the training run."""
        return _hash(self.training_fields())

    def hash(self) -> str:
        """12 hex digits over every field."""
        return _hash(asdict(self))

    def run_name(self) -> str:
        """Folder name of the training run; methods that share a trajectory share it."""
        method = METHODS[self.method]
        kind = method.trainer if method.objective == "cross_entropy" else method.objective
        return f"{kind}-{self.training_hash()}"


_TEST_FIELDS = ("test_clips", "gwa_mu", "gwa_sigma", "swa_start", "patch_ratio", "views")
CHOICES = {
    "trainable": ("adapters", "visual"),
    "temporal_module": ("st_adapter", "aim", "expanded"),
    "adapter_form": ("ours", "published", "published_conv"),
    "border": ("zero", "mask"),
    "half": ("all", "base", "novel"),
    "pairing": ("next", "same", "disjoint"),
    "sampling": ("uniform", "dense"),
    "compat": ("", "pyav", "torchvision"),
    "precision": ("float32", "bf16"),
}
RANGES = (
    ("rho", 0.0, 1.0), ("train_clips", 1, 10**7), ("test_clips", 1, 10**7), ("num_frames", 1, 256),
    ("adapter_width", 0, 4096), ("epochs", 1, 1000), ("steps_per_epoch", 0, 10**7), ("warmup_epochs", 0, 999),
    ("batch_size", 2, 65536), ("outer_lr", 0.0, 10.0), ("inner_lr", 0.0, 1e6), ("query_weight", 0.0, 1e3),
    ("weight_decay", 0.0, 10.0), ("max_grad_norm", 0.0, 1e9), ("seed", 0, 2**31 - 1), ("world_seed", 0, 2**31 - 1),
    ("home_seed", 0, 2**31 - 1), ("held_out", 0, 3),
    ("gwa_sigma", 0.0, 1e9), ("shots", 0, 10**6), ("views", 1, 100), ("iwr_max", 0.0, 1.0), ("iwr_weight", 0.0, 1e3),
    ("distill_weight", 0.0, 1e3), ("micro_batch", 0, 65536), ("swa_start", 1, 1000), ("patch_ratio", 0.0, 1.0),
)  # fmt: skip

# What a profile changes. smoke: everything, tiny (the tests run it); cpu: one seed on two cores, an epoch being
# half of the clips, so that 8 epochs are 448 steps; full: the same for the study's seeds; paper: real videos under the
# published protocols. There, from Open-VCLIP's published recipe: 22 epochs, 2 of them warm-up, AdamW with
# weight decay 0.01, clipping at 1, 8 frames every 16th, 3 views, 28 templates; batch 32 from the authors' sibling
# method. Paper does not say alpha and beta: beta is ours for adapters (whole encoders keep the published 3.33e-6, see
# load_config), alpha is ours too, and neither was tried on real data.
PROFILES: dict[str, dict] = {
    "smoke": {"epochs": 2, "warmup_epochs": 1, "train_clips": 288, "test_clips": 144},
    "cpu": {"steps_per_epoch": 56},
    "full": {"steps_per_epoch": 56},
    "paper": {
        "model": "ViT-B-16-quickgelu", "weights": "openai", "adapter_width": 384, "adapter_form": "published",
        "epochs": 22, "batch_size": 32, "outer_lr": 5e-4, "inner_lr": 0.01, "sampling": "dense", "views": 3,
        "prompts": "templates",
    },
}  # fmt: skip
WHOLE_ENCODER_LR = 3.33e-6  # Open-VCLIP's, for batches of 64


def load_config(profile: str = "cpu", **overrides) -> Config:
    """The effective configuration of a profile.

    The ``paper`` profile also takes what is published for the method and the trained part: expanded attention and
    the whole encoder for Open-VCLIP and FROSTER, its learning rate for whole encoders, the width of AIM's
    adapters, and 12 epochs for few-shot training (FROSTER's scripts for base-to-novel).

    Args:
        profile: one of ``PROFILES``.
        overrides: fields of :class:`Config`.

    Returns:
        the validated configuration.

    Raises:
        ValueError: unknown profile or field, or a value out of range; names field, value and what is allowed.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}; allowed: {', '.join(PROFILES)}")
    known = {one.name for one in fields(Config)}
    unknown = sorted(overrides.keys() - known)
    if unknown:
        raise ValueError(f"unknown configuration fields {unknown}; known: {', '.join(sorted(known))}")
    chosen = dict(PROFILES[profile])
    method = METHODS.get(overrides.get("method", Config.method))
    if method:
        chosen |= method.paper if profile == "paper" else method.tuned
    if overrides.get("data", Config.data) != Config.data:
        chosen.pop("steps_per_epoch", None)  # half an epoch is a saving on the synthetic world alone
    if profile == "paper":
        if {**chosen, **overrides}.get("trainable") == "visual":
            chosen["outer_lr"] = WHOLE_ENCODER_LR
        if {**chosen, **overrides}.get("temporal_module") == "aim":
            chosen["adapter_width"] = 192
        if overrides.get("shots"):
            chosen["epochs"] = 12
    return Config(**{**chosen, **overrides})


@dataclass(frozen=True)
class EvalSet:
    """One test: which clips, how they are shown, and with which texts; a record of accuracy is named by it."""

    set: str = "source"  # of the synthetic world; or what results call a data set of real videos
    half: str = "base"  # base, novel, all, or a fold of the world (kept_K, pseudo_novel_K)
    part: int | str = 1  # draw of the world's clips; or the split of a list, such as test1
    context: str = "in"  # or an out-of-context background
    order: str = "forward"  # of frames: or shuffled, reversed (labelled with the reversed action), single
    clips: int = 2500  # of the synthetic world
    views: int = 1  # of real videos, averaged
    prompts: str = "name"
    data: str = ""  # real videos: the list of videos, or of frame folders (SCUBA)
    root: str = ""  # real videos: the folder of those frame folders
    classes_of: str = ""  # SCUBA: the list of videos whose classes its labels count


@dataclass(frozen=True)
class Average:
    """Which average of a trajectory is tested; epochs count from 1, epoch 0 is the learner before training."""

    rule: str = "last"  # or gwa, swa, ema, epoch
    mu: float = 0.0  # gwa: in epochs
    sigma: float = 0.0
    start: int = 1  # swa: first epoch
    epoch: int = 0  # of the rule epoch
    decay: float = 0.9  # of ema, an epoch's
    with_zero: bool = False  # epoch 0 takes part
    patch: float = 0.0  # share of epoch 0 (CLIP) mixed in at the end: WiSE-FT
    name: str = ""  # what records call it; no part of what is computed


def diff(config: Config, reference: Config | Mapping | None = None) -> dict[str, tuple]:
    """How a configuration differs from a reference recipe.

    Args:
        config: the configuration.
        reference: what it is compared with; default: the defaults.

    Returns:
        {field: (reference value, value)} of the fields that differ.
    """
    reference = asdict(Config()) if reference is None else reference
    before = asdict(reference) if isinstance(reference, Config) else dict(reference)
    return {name: (before.get(name), value) for name, value in asdict(config).items() if before.get(name) != value}


def _hash(values: Mapping) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
