"""The systems, one folder each; beside them what two systems share: diffusion, checkpoints, presets."""
