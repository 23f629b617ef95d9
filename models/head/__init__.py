"""The head of GeneFace (Ye et al., arXiv 2301.13430): a radiance field of one person's head that moves with its landmarks.

In two forms behind one interface: `mlp`, the paper's, which is AD-NeRF's (arXiv 2103.11078) with landmarks in the place of
sound; and `grid`, that of the release v1.1, which is RAD-NeRF's (arXiv 2211.12368): grids for most of the network, empty space
skipped, and the movement as two more coordinates ("ambient"). "The release" is the authors' code, yerfor/GeneFace at 15ff4e5;
where it and the paper disagree, the release is followed.
"""
