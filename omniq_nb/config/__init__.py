"""What the user chose: one list of options, where values come from, and which one wins."""

from omniq_nb.config.backend import StorageBackendConfig
from omniq_nb.config.model import COMPONENTS, OmniQConfig

__all__ = ["COMPONENTS", "OmniQConfig", "StorageBackendConfig"]
