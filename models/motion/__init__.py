"""Audio to motion: the first stage of GeneFace: Generalized and High-Fidelity Audio-Driven 3D Talking Face Synthesis (Ye et al.,
arXiv 2301.13430).

A variational autoencoder whose prior is a flow makes the landmarks of a face that speaks, of anybody's, from the sound; many
ways of saying it, and not their mean. "The release" is the authors' code, yerfor/GeneFace at 15ff4e5, `lm3d_vae_sync` without
pitch; where it and the paper disagree, the release is followed.
"""
