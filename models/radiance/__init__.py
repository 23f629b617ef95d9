"""Radiance fields: what the renderers of a head and of a torso share.

encodings.py    coordinates and directions as networks read them, and tables of features over space
cameras.py      pictures to rays, and the head frame to a field's box
fields.py       the networks that a field is made of
sampling.py     the paper's renderer: samples along the whole ray, then more where they count
marching.py     the release's renderer: samples where a grid says that something is
compositing.py  what samples have, to what a ray sees

Pure torch, on the CPU and on CUDA, differentiable. Nothing here hears, trains or reads a file.
"""
