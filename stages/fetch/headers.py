"""What HTTP headers say, of which any may be missing or wrong."""

import re
from email.utils import parsedate_to_datetime

import requests

LONGEST_NUMBER = 18  # digits


def length(response: requests.Response) -> int | None:
    return _number(response.headers.get("Content-Length"))


def validator(response: requests.Response) -> str | None:
    """The server's word for this version of a file: a strong ETag (a weak one says nothing of bytes), else a date."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def differ(one: str | None, other: str | None) -> bool:
    """Whether two validators are of two versions for sure."""
    return one is not None and other is not None and one.startswith('"') == other.startswith('"') and one != other


def content_range(response: requests.Response) -> tuple[int | None, int | None, int | None]:
    """First byte, last byte, length of the whole; None for each that is not said rightly."""
    said = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(?:(\d+)|\*)", response.headers.get("Content-Range", ""))
    return (_number(said[1]), _number(said[2]), _number(said[3])) if said else (None, None, None)


def retry_after(response: requests.Response, now: float) -> float | None:
    """Seconds to wait, from their number or from a date; None if neither. now: seconds since 1970."""
    said = response.headers.get("Retry-After", "").strip()
    if (seconds := _number(said)) is not None:
        return float(seconds)
    try:
        return max(parsedate_to_datetime(said).timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None


def is_page(response: requests.Response) -> bool:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return kind in ("text/html", "application/xhtml+xml")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) <= LONGEST_NUMBER else None
