"""The committed parameters, as the stages read them."""

from stages.align import AlignParams
from stages.landmarks import LandmarkParams
from stages.masks import MaskParams
from stages.meshes import MeshParams
from stages.params import section
from stages.parsing import ParsingParams
from stages.spectrograms import SpectrogramParams
from stages.speech import SpeechParams

ALIGN = section("align", AlignParams)
LANDMARKS = section("landmarks", LandmarkParams)
MASKS = section("masks", MaskParams)
MESHES = section("meshes", MeshParams)
PARSING = section("parsing", ParsingParams)
SPECTROGRAMS = section("spectrograms", SpectrogramParams)
SPEECH = section("speech", SpeechParams)
