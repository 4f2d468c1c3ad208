"""What the old runner's plan sets of a configuration."""

from .config import Config


def overrides(**parameters) -> dict:
    """The parameters that a notebook's reader has set, for ``load_config(profile, **overrides(...))``.

    A parameters cell holds literals only, so "take the profile's value" is written as ``""`` for text and as
    ``-1`` for numbers, or as ``0`` where zero makes no sense (``epochs``, ``batch_size``).

    Args:
        parameters: fields of :class:`mede_core.config.Config` with the values of the parameters cell.

    Returns:
        those that are set.
    """
    lowest = {
        name: one.ge for name, of in Config.model_fields.items() for one in of.metadata if getattr(one, "ge", None)
    }

    def is_unset(name, value) -> bool:
        if isinstance(value, bool):
            return False
        return value in ("", -1) or (value == 0 and lowest.get(name, 0) > 0)

    return {name: value for name, value in parameters.items() if not is_unset(name, value)}
