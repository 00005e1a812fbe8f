"""Python objects as signed bytes, and back.

``codec.py`` signs and opens payloads, ``plain.py`` packs plain data exactly, ``frames.py`` data
frames as Parquet,
``functions.py`` makes functions travel, ``readable.py`` makes JSON for people and queries,
``keys.py`` keeps the project's key.
"""

from omniq_nb.codec.codec import Codec, split_table
from omniq_nb.codec.frames import as_table
from omniq_nb.codec.keys import project_key
from omniq_nb.codec.readable import arguments_json, to_json, type_name

__all__ = [
    "Codec",
    "arguments_json",
    "as_table",
    "project_key",
    "split_table",
    "to_json",
    "type_name",
]
