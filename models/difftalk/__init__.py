"""DiffTalk: Crafting Diffusion Models for Generalized Audio-Driven Portraits Animation (Shen et al., arXiv 2301.03786).

The lower face is painted in the latents of an autoencoder, from the sound, the upper face's landmarks and a reference frame.
"The release" is the authors' code, sstzal/DiffTalk at b49a607; where it and the paper disagree, the release is followed.
"""

MAKES = "frames"  # which of stages/judges judges and shows it
