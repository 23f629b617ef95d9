"""The stages that DVC runs: one module per stage, and the engine that maps its clip function over shards."""
