"""How many steps an epoch has, and the learning rate of each. Torch-free: a plan of trainings counts by it, too."""

import math

from .config import Config
from .files import say_once


def steps_of(config: Config, clips: int) -> int:
    """Steps of an epoch: those that were asked for, or as many as the clips give, said where they are fewer."""
    asked, most = config.steps_per_epoch, clips // config.batch_size
    if asked > most:
        say_once(f"steps_per_epoch is {asked}; {clips} clips in batches of {config.batch_size} give {most}, no more")
    return min(asked or most, most)


def learning_rate(step: int, total: int, warmup: int, peak: float) -> float:
    """Linear warm-up from 1 % of the peak, then cosine down to 1 % of it (Open-VCLIP's published schedule)."""
    floor = 0.01 * peak
    if step < warmup:
        return floor + (peak - floor) * step / warmup
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
