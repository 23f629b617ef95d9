"""HDTF in small: the text files as their authors wrote them (byte order mark, spaces at the ends of lines, no last newline,
parameters in addresses), and videos of 360p where the boxes are for 720p.

The persons are of the corpus, so that data/splits/hdtf.yaml knows them; addresses, times and boxes are invented.
"""

from fractions import Fraction
from pathlib import Path

from tests.media import voice
from tests.miniatures.formats import Format, talker, write_film

FORMAT = Format("mp4", "libx264", "aac", Fraction(30000, 1001), 44_100, options={"crf": "20", "preset": "superfast"})
SECONDS = 4.5

TEXTS = {
    "RD_video_url": b"Radio1 https://www.youtube.com/watch?v=AAAAAAAAAA1\nRadio24 https://www.youtube.com/watch?v=AAAAAAAAA24\n",
    "RD_annotion_time": b"Radio1.mp4 00:00-00:02 00:02-00:04\n",
    "RD_crop_wh": b"Radio1_0.mp4 350 580 60 580\nRadio1_1.mp4 352 580 60 580\n",
    "RD_crop_ratio": b"Radio1_0.mp4 1.2\nRadio1_1.mp4 1.2\n",
    "RD_resolution": b"Radio1.mp4 720\nRadio24.mp4 720\n",
    "WDA_video_url": b"\xef\xbb\xbfCarolynMaloney2 https://www.youtube.com/watch?v=-AAAAA_AAA2\n"
    b"CarolynMaloney1 https://www.youtube.com/watch?v=AAAAAAAAAA3&t=138s\n"
    b"WhipJimClyburn https://www.youtube.com/watch?v=AAAAAAAAAA4",
    "WDA_annotion_time": b"CarolynMaloney1.mp4 00:01-00:03\nCarolynMaloney2.mp4 00:00-00:02 \nWhipJimClyburn.mp4 00:00-00:02",
    "WDA_crop_wh": b"CarolynMaloney1_0.mp4 351 581 61 581\nCarolynMaloney2_0.mp4 350 580 60 580\n"
    b"WhipJimClyburn_0.mp4 350 580 60 580",
    "WDA_crop_ratio": b"CarolynMaloney1_0.mp4 1.2\nCarolynMaloney2_0.mp4 1.2\nWhipJimClyburn_0.mp4 1.2",
    "WDA_resolution": b"CarolynMaloney1.mp4 720\nCarolynMaloney2.mp4 720\nWhipJimClyburn.mp4 720",
    "WRA_video_url": b"MittRomney https://www.youtube.com/watch?v=AAAAAAAAAA5\n"
    b"KevinMcCarthy1 https://www.youtube.com/watch?v=AAAAAAAAAA6\n"
    b"MichaelSteele https://www.youtube.com/watch?v=AAAAAAAAAA7\n"
    b"PeterKing https://www.youtube.com/watch?v=AAAAAAAAAA8",
    "WRA_annotion_time": b"KevinMcCarthy1.mp4 00:00-00:02 00:02-00:04 \nMittRomney.mp4 00:01-00:03 00:33-08:53\n"
    b"MichaelSteele.mp4 00:00-00:02 02:00-02:30\nPeterKing.mp4 00:00-00:02\n",
    "WRA_crop_wh": b"KevinMcCarthy1_0.mp4 412 465 0 465\nKevinMcCarthy1_1.mp4 421 459 14 459\nMittRomney_0.mp4 350 580 60 580\n"
    b"MichaelSteele_0.mp4 350 580 60 580\nMichaelSteele_1.mp4 350 580 60 580\nPeterKing_0.mp4 178 872 0 872\n",
    "WRA_crop_ratio": b"KevinMcCarthy1_0.mp4 1.2\nKevinMcCarthy1_1.mp4 1.2\nMittRomney_0.mp4 1.2\nMichaelSteele_0.mp4 1.2\n",
    "WRA_resolution": b"KevinMcCarthy1.mp4 0\nMittRomney.mp4 720\nMichaelSteele.mp4 720\nPeterKing.mp4 720\n",
}
# Of the videos that are asked for, WDA_WhipJimClyburn is gone from the web.
ALIVE = ("RD_Radio1", "WDA_CarolynMaloney1", "WDA_CarolynMaloney2", "WRA_MittRomney", "WRA_MichaelSteele")


def write_texts(folder: Path) -> Path:
    """The text files as they are served."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_bytes(text)
    return folder


def write_videos(folder: Path, height: int = 360) -> Path:
    """The videos that still are on the web, of another height than the one that is wanted (720)."""
    width = height * 16 // 9
    path = write_film(folder / "film.mp4", FORMAT, talker(SECONDS, FORMAT.fps, width, height, scale=height / 400), voice(SECONDS))
    data = path.read_bytes()
    path.unlink()
    for name in ALIVE:
        (folder / f"{name}.mp4").write_bytes(data)
    return folder


def write_native(raw: Path) -> Path:
    """What stands in `data/raw/hdtf` after the download."""
    write_texts(raw)
    write_videos(raw / "videos")
    return raw
