"""The library's loggers: `omniq_nb` and what is below it. The root logger is left alone."""

import logging

from omniq_nb.config.model import OmniQConfig

_NEVER = logging.CRITICAL + 10


def apply_logging(config: OmniQConfig) -> None:
    """Set the levels that the configuration says."""
    settings = config.settings
    library = logging.getLogger("omniq_nb")
    library.setLevel(_level("DISABLED" if settings.disable_logging else settings.log_level))
    for component, level in settings.component_log_levels.items():
        name = component if component.startswith("omniq_nb") else f"omniq_nb.{component}"
        logging.getLogger(name).setLevel(_NEVER if settings.disable_logging else _level(level))


def _level(name: str) -> int:
    return _NEVER if name == "DISABLED" else logging.getLevelNamesMapping()[name]
