"""The library's loggers: `omniq_nb` and what is below it. The root logger is left alone."""

import logging

from omniq_nb.config.model import OmniQConfig

_NEVER = logging.CRITICAL + 10
_applied: dict[str, int] = {}
"""The levels that the configuration before this one set, by logger."""


def apply_logging(config: OmniQConfig) -> None:
    """Set the levels that the configuration says, and take back those of the one before.

    A level that somebody set by other means stays, unless this configuration or the environment
    names one.
    """
    settings = config.settings
    _, source = config.describe_sources()["log_level"]
    levels = {"omniq_nb": _level(settings.log_level)}
    for component, word in settings.component_log_levels.items():
        name = component if component.startswith("omniq_nb") else f"omniq_nb.{component}"
        levels[name] = _level(word)
    if settings.disable_logging:
        levels = dict.fromkeys(levels, _NEVER)
    for name, level in _applied.items():
        logger = logging.getLogger(name)
        if logger.level == level:
            logger.setLevel(logging.NOTSET)
    _applied.clear()
    if source == "default" and not settings.disable_logging and logging.getLogger("omniq_nb").level:
        del levels["omniq_nb"]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    _applied.update(levels)


def _level(name: str) -> int:
    return _NEVER if name == "DISABLED" else logging.getLevelNamesMapping()[name]
