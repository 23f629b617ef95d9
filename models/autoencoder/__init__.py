"""The vector-quantised autoencoder of latent diffusion (VQGAN, arXiv 2012.09841; Rombach et al., arXiv 2112.10752).

The first stage of DiffTalk (arXiv 2301.03786): a system that paints in its latents works on a sixteenth of the pixels.
"""
