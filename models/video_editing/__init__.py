"""Speech Driven Video Editing via an Audio-Conditioned Diffusion Model (Bigioi et al., arXiv 2301.04474).

The lower face of a video is noised and painted again from the speech, frame after frame. "The release" is the authors'
code, DanBigioi/DiffusionVideoEditing at 1a7bb2a; where it and the paper disagree, the release is followed.
"""

MAKES = "frames"  # which of stages/judges judges and shows it
