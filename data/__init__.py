"""Ground floor: shard sets, media, corpora. Imports nothing from the floors above."""
