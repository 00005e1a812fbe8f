"""The configuration under the name that users of the original OmniQ know.

It lives in `omniq_nb.config`.
"""

from omniq_nb.config import OmniQConfig, StorageBackendConfig

__all__ = ["OmniQConfig", "StorageBackendConfig"]
