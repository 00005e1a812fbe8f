"""All four components in a bucket: Amazon S3 and its like, Google Cloud Storage, Azure Blob.

`place` puts them together. `clouds` has what differs between the three, `connection` the few
requests that everything is made of, `log` the journal of queue and schedules, `bucket` what
results and events need, `cache` the compacted segments that were fetched already.

Not here: what an entry means (`omniq_nb.storage.journal`) and what a segment means
(`omniq_nb.storage.objects`).
"""

from omniq_nb.storage.buckets.place import AzurePlace, GcsPlace, S3Place

__all__ = ["AzurePlace", "GcsPlace", "S3Place"]
