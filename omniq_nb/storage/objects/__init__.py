"""Results and events as Parquet segments in a bucket. The layout is `docs/layout.md`.

`bucket` (the primitives, and a local folder as a bucket), `segments` (files, manifest, caches),
`compaction` (small segments become large ones), `store` (what both stores share), and the two
stores: `results`, `events`.
"""
