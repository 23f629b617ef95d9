"""GeneFace: Generalized and High-Fidelity Audio-Driven 3D Talking Face Synthesis (Ye et al., arXiv 2301.13430).

Sound becomes landmarks (models/motion), then this person's landmarks (models/postnet), and those a picture: a radiance field of
the head (models/head), and here of the torso; a checkpoint holds them all. "The release" is the authors' code, yerfor/GeneFace at
15ff4e5, whose renderer from v1.1 on descends from RAD-NeRF (arXiv 2211.12368).
"""

MAKES = "portraits"  # which of stages/judges judges and shows it
