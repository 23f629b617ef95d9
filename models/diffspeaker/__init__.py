"""DiffSpeaker: Speech-Driven 3D Facial Animation with Diffusion Transformer (Ma et al., arXiv 2402.05712).

Noise over all frames of a mesh becomes its motion away from the neutral face, in a few steps, each hearing the speech. "The
release" is the authors' code, theEricMa/DiffSpeaker at 0f2ae2d; where it and the paper disagree, the release is followed.
"""

MAKES = "meshes"  # which of stages/judges judges and shows it
