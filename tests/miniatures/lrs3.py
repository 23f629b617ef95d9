"""LRS3 in small: faces at 224 × 224 and 25 fps (h264) with AAC sound of 16 kHz, and their texts.

A text is a header and tables: the words' times in `pretrain`, also the face's place in the others (shortened here).
"""

from fractions import Fraction
from pathlib import Path

from tests.media import voice
from tests.miniatures.formats import Format, talker, write_film

FORMAT = Format("mp4", "libx264", "aac", Fraction(25), 16_000, options={"crf": "20", "preset": "superfast"})
SECONDS = 2.0

TEXTS = {
    "pretrain/-AbC_1dEfGh/00001": "Text:  THE FIRST WORD I SAID\nConf:  4\n\nWORD START END ASDSCORE\n"
    "THE 0.10 0.22 3.1\nFIRST 0.22 0.61 4.0\nWORD 0.61 0.98 5.2\nI 1.10 1.16 4.4\nSAID 1.16 1.55 2.9\n",
    "pretrain/-AbC_1dEfGh/00002": "Text:  AND ANOTHER\nConf:  5\n\nWORD START END ASDSCORE\n"
    "AND 0.0 0.31 1.0\nANOTHER 0.31 0.8 -0.4\n",
    "trainval/00j9bKdiOjk/50001": "Text:  WE'RE HERE\nConf:  6\nRef:   00j9bKdiOjk\n\n"
    "FRAME \tX \tY \tW \tH \n000100 \t0.31 \t0.20 \t0.15 \t0.26\n000101 \t0.31 \t0.20 \t0.15 \t0.26\n\n"
    "WORD START END ASDSCORE\nWE'RE 0.05 0.30 4.4\nHERE 0.30 0.72 3.9\n",
    "trainval/00j9bKdiOjk/50002": "Text:  WITHOUT TIMES\nConf:  3\n",
    "test/0Fi83BHQsMA/00002": "Text:  TESTED\nConf:  5\nRef:   0Fi83BHQsMA\n\nWORD START END ASDSCORE\nTESTED 0.4 0.9 4.1\n",
}


def write_native(raw: Path) -> Path:
    """What stands in `data/raw/lrs3` once somebody has placed it."""
    path = write_film(raw / "film.mp4", FORMAT, talker(SECONDS, FORMAT.fps, 224, 224, scale=0.7), voice(SECONDS))
    data = path.read_bytes()
    path.unlink()
    for name, text in TEXTS.items():
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / f"{name}.mp4").write_bytes(data)
        (raw / f"{name}.txt").write_text(text)
    return raw
