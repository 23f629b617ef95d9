"""The committed parameters, as the stages read them."""

from stages.align import AlignParams
from stages.landmarks import LandmarkParams
from stages.masks import MaskParams
from stages.params import section
from stages.spectrograms import SpectrogramParams

ALIGN = section("align", AlignParams)
LANDMARKS = section("landmarks", LandmarkParams)
MASKS = section("masks", MaskParams)
SPECTROGRAMS = section("spectrograms", SpectrogramParams)
