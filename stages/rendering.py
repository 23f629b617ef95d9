"""How videos are rendered: parameters that the stage `render` reads and every judge's `film` obeys."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RenderParams:
    """`render` in params.yaml."""

    seam: int  # aligned pixels over which a painted face fades into the real one, inside the mask
    mesh_size: int  # pixels of each drawn mesh, of which a film has three side by side; even
    crf: int  # x264 quality of the rendered video, 0 (lossless) to 51
    sheet_columns: int  # moments of each clip on the contact sheet
