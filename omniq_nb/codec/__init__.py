"""Python objects as signed bytes, and back.

``codec.py`` signs and opens payloads, ``plain.py`` packs plain data exactly, ``frames.py`` data
frames as Parquet, ``functions.py`` makes functions travel, ``shipping.py`` has whole modules travel
with them, ``bundles.py`` names what is too large to be stored with each task, ``readable.py`` makes
JSON for people and queries, ``keys.py`` keeps the project's key.
"""

from omniq_nb.codec.bundles import Bundles
from omniq_nb.codec.codec import Codec, split_table
from omniq_nb.codec.frames import as_table
from omniq_nb.codec.keys import project_key
from omniq_nb.codec.readable import arguments_json, to_json, type_name

__all__ = [
    "Bundles",
    "Codec",
    "arguments_json",
    "as_table",
    "project_key",
    "split_table",
    "to_json",
    "type_name",
]
