"""One flat configuration for an experiment, the methods as recipes, and the profiles; torch-free.

A notebook parameter, a command-line flag and a field here have the same name. ``Config.training_hash`` covers what
changes a training run, so methods that differ only in how epochs are averaged share one trajectory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Method:
    """How a method trains and which weights it is evaluated with.

    Attributes:
        trainer: ``none``, ``plain`` (one batch a step) or ``meta`` (cross-batch meta-step).
        average: ``none``, ``last`` epoch or ``gwa`` (Gaussian weight averaging over epochs 1..E).
        source: where the recipe comes from.
    """

    trainer: str
    average: str
    source: str


METHODS = {
    "frozen": Method("none", "none", "CLIP per frame, logits averaged over frames (Open-VCLIP's protocol)"),
    "finetune": Method("plain", "last", "cross-entropy only"),
    "open_mede_no_gwa": Method("meta", "last", "the paper's ablation row without GWA"),
    "open_mede": Method("meta", "gwa", "the paper: cross-batch meta-optimization and GWA"),
}


@dataclass(frozen=True)
class Config:
    """Everything that defines an experiment; see the comments for units and provenance."""

    # What is learned from
    data: str = "synthetic"  # or the path of a `path,label` CSV of real videos
    world_seed: int = 1  # base/novel halves and clips of the synthetic world; 0 is the design seed
    rho: float = 0.8  # share of training clips before their motion's home scene; chance is 0.25
    train_clips: int = 3600
    test_clips: int = 2500
    num_frames: int = 8
    # The learner
    model: str = "mede-small"  # or an open_clip ViT
    weights: str = "shipped"  # or an open_clip tag, or a local file
    random_weights: bool = False  # smoke runs only; written on every output
    trainable: str = "adapters"  # or visual: the whole encoder, as the authors' scripts suggest
    adapter_width: int = 24
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
    weight_decay: float = 0.01  # biases and 1-d tensors exempt
    max_grad_norm: float = 1.0
    seed: int = 0  # initialization of the adapters and order of the clips
    # Averaging; 0.0 means gwa.published_schedule: 0.68 and 0.45 of the epochs (leftovers: mu 15, sigma 10 of 22)
    gwa_mu: float = 0.0
    gwa_sigma: float = 0.0

    def __post_init__(self):
        for field in fields(self):
            value, expected = getattr(self, field.name), type(field.default)
            if expected is float and type(value) is int:
                object.__setattr__(self, field.name, float(value))
            elif type(value) is not expected:
                raise ValueError(f"{field.name} is {value!r}; expected {expected.__name__}")
            if expected is float and not math.isfinite(getattr(self, field.name)):
                raise ValueError(f"{field.name} is {value!r}; it must be finite")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value!r}; allowed: {low} to {high}")
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; allowed: {', '.join(METHODS)}")
        if self.trainable not in ("adapters", "visual"):
            raise ValueError(f"trainable is {self.trainable!r}; allowed: adapters, visual")
        if self.trainable == "adapters" and self.adapter_width == 0:
            raise ValueError("adapter_width is 0: with trainable='adapters' nothing would be trained")
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

    def training_fields(self) -> dict:
        """The fields that change a training run: all but test size, averaging, and the method's name."""
        values = asdict(self)
        for name in ("test_clips", "gwa_mu", "gwa_sigma", "method"):
            del values[name]
        trainer = METHODS[self.method].trainer
        if trainer != "meta":
            for name in ("inner_lr", "query_weight", "first_order"):
                del values[name]
        return {"trainer": trainer, **values}

    def training_hash(self) -> str:
        """12 hex digits that name the training run."""
        return _hash(self.training_fields())

    def hash(self) -> str:
        """12 hex digits over every field."""
        return _hash(asdict(self))

    def run_name(self) -> str:
        """Folder name of the training run; methods that share a trajectory share it."""
        return f"{METHODS[self.method].trainer}-{self.training_hash()}"


_RANGES = (
    ("rho", 0.0, 1.0), ("train_clips", 1, 10**7), ("test_clips", 1, 10**7), ("num_frames", 1, 256),
    ("adapter_width", 0, 4096), ("epochs", 1, 1000), ("steps_per_epoch", 0, 10**7), ("warmup_epochs", 0, 999),
    ("batch_size", 2, 65536), ("outer_lr", 0.0, 10.0), ("inner_lr", 0.0, 1e6), ("query_weight", 0.0, 1e3),
    ("weight_decay", 0.0, 10.0), ("max_grad_norm", 0.0, 1e9), ("seed", 0, 2**31 - 1), ("world_seed", 0, 2**31 - 1),
    ("gwa_sigma", 0.0, 1e9),
)  # fmt: skip

# What a profile changes. smoke: everything, tiny (the tests run it); cpu: one seed on a laptop's two cores.
PROFILES: dict[str, dict] = {
    "smoke": {"epochs": 2, "warmup_epochs": 1, "train_clips": 288, "test_clips": 144},
    "cpu": {},
}


def load_config(profile: str = "cpu", **overrides) -> Config:
    """The effective configuration of a profile.

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
    known = {field.name for field in fields(Config)}
    unknown = sorted(overrides.keys() - known)
    if unknown:
        raise ValueError(f"unknown configuration fields {unknown}; known: {', '.join(sorted(known))}")
    return Config(**{**PROFILES[profile], **overrides})


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
