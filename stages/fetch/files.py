"""The files of a corpus: what stands already stays, what is missing or changed is fetched, archives are unpacked.

Nothing that a person placed is removed or replaced. A file that stands under its own name, or an archive under its, is taken
as if it had been fetched.
"""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from stages.fetch import DownloadError
from stages.fetch.archives import DamagedArchive, unpack
from stages.fetch.connections import address, credentials
from stages.fetch.http import Downloader
from stages.fetch.parts import Fetched, Remote
from stages.fetch.progress import FetchProgress
from stages.fetch.record import BY_HAND, DOWNLOADED, FileEntry, Record, Seen, today

SECONDS_BETWEEN_RECORDS = 10
MOST_TOLD = 5


@dataclass(frozen=True)
class Wanted:
    """A file that a manifest names. DownloadError if it would stand outside of the corpus's folder.

    file: its path in that folder; of an archive, where a person would place it.
    unpack, into: "zip" or "tar", and the folder below the corpus's for what is in it.
    form: see Remote.
    """

    file: str
    url: str
    bytes: int | None = None
    checksum: str | None = None
    unpack: str | None = None
    into: str = ""
    form: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for path in (PurePosixPath(self.file), PurePosixPath(self.into)):
            if path.is_absolute() or ".." in path.parts:
                raise DownloadError(f"a manifest names {str(path)!r}, which leads out of its corpus's folder")


class Files:
    """Brings the files of one corpus into `raw`, and what is known of them into `record`.

    page: where one registers or accepts the licence.
    """

    def __init__(self, corpus: str, page: str, raw: Path, work: Path, record: Record, downloader: Downloader):
        self._corpus, self._page, self._raw, self._work, self._record = corpus, page, raw, work, record
        self._downloader = downloader
        self._seen = Seen(work / "seen.json")
        self._last_written = time.monotonic()

    def write(self) -> None:
        """Keep what is known for the next run."""
        self._record.write()
        self._seen.write()
        self._last_written = time.monotonic()

    def missing(self, wanted: Iterable[Wanted]) -> list[Wanted]:
        """Those that do not stand. DownloadError for files that a person placed and that are not what they should be."""
        missing, wrong = [], []
        for one in wanted:
            try:
                if not self._stands(one):
                    missing.append(one)
            except DownloadError as error:
                wrong.append(str(error))
        if wrong:
            more = [f"and {len(wrong) - MOST_TOLD} more"] if len(wrong) > MOST_TOLD else []
            raise DownloadError(
                "\n".join([*wrong[:MOST_TOLD], *more, "Remove them to have them fetched, or put the right ones there."])
            )
        return missing

    def fetch(self, missing: Sequence[Wanted]) -> None:
        """Fetch files that do not stand. DownloadError tells of all that could not be."""
        wanted = {one.file: one for one in missing if not self._unpack_waiting(one)}
        remotes = [self._remote(one) for one in wanted.values()]
        for remote in remotes:
            credentials(remote)  # all that are missing are told before anything is fetched
        with FetchProgress(self._corpus, len(remotes), sum(remote.bytes or 0 for remote in remotes)) as progress:
            self._downloader.fetch_all(
                remotes, progress, lambda remote, came: self.accept(wanted[remote.name], came, remote.target)
            )

    def accept(self, one: Wanted, came: Fetched, path: Path) -> None:
        """A file that was fetched to `path`. Unpacks it if it is an archive; DownloadError if that cannot be."""
        entry = FileEntry(address(one.url), DOWNLOADED, today(), came.bytes, came.sha256, one.checksum, came.validator)
        if one.unpack:
            self._unpack(one, path, entry)
            path.unlink()
        else:
            self._record.files[one.file] = entry
            self._seen.remember(path, f"sha256:{came.sha256}", *([one.checksum] if one.checksum else []))
        if time.monotonic() - self._last_written > SECONDS_BETWEEN_RECORDS:
            self.write()

    def _remote(self, one: Wanted) -> Remote:
        place = self._raw / one.file
        target = self._archive(one) if one.unpack else place
        return Remote(one.file, one.url, target, place, one.bytes, self._checksum(one), one.unpack, one.form, self._page)

    def _checksum(self, one: Wanted) -> str | None:
        """The published one; without one, that of the first file that came, unless the manifest now gives another size."""
        known = self._record.files.get(one.file)
        return one.checksum or (f"sha256:{known.sha256}" if known and one.bytes in (None, known.bytes) else None)

    def _archive(self, one: Wanted) -> Path:
        """Where a fetched archive waits to be unpacked."""
        return self._work / "archives" / quote(one.file, safe="")

    def _stands(self, one: Wanted) -> bool:
        place, known = self._raw / one.file, self._record.files.get(one.file)
        if one.unpack and known and self._members_stand(known, one):
            return True
        if not place.exists():
            return False
        checksum = self._checksum(one)
        found = self._seen.checksum(place, checksum.partition(":")[0] if checksum else "sha256")
        size = place.stat().st_size
        if checksum not in (None, found) or one.bytes not in (None, size):
            if known and known.status == DOWNLOADED and not one.unpack:
                self._say(f"{place} is no longer what was fetched, or what is wanted: it is fetched again")
                return False
            raise DownloadError(f"{place} has {found} and {size} bytes, and should have {checksum or one.bytes}")
        if known is None or known.bytes != size or one.unpack:
            sha256 = self._seen.checksum(place, "sha256").partition(":")[2]
            entry = FileEntry(address(one.url), BY_HAND, today(), size, sha256, one.checksum)
            if one.unpack:
                self._unpack(one, place, entry)
                self._say(f"{place} is unpacked, and may be removed")
            else:
                self._record.files[one.file] = entry
        return True

    def _say(self, what: str) -> None:
        print(f"{self._corpus}: {what}", file=sys.stderr, flush=True)

    def _members_stand(self, known: FileEntry, one: Wanted) -> bool:
        """Whether all that an archive held is there, and it is the archive that is wanted."""
        same = one.checksum in (None, known.checksum, f"sha256:{known.sha256}") and one.bytes in (None, known.bytes)
        return same and known.members is not None and all(_size(self._raw / name) == size for name, size in known.members.items())

    def _unpack_waiting(self, one: Wanted) -> bool:
        """Unpack an archive that an earlier run fetched and did not get to unpack."""
        archive = self._archive(one)
        if not one.unpack or not archive.exists():
            return False
        checksum = self._checksum(one)
        if checksum not in (None, self._seen.checksum(archive, (checksum or "").partition(":")[0] or "sha256")):
            archive.unlink()
            return False
        sha256 = self._seen.checksum(archive, "sha256").partition(":")[2]
        self.accept(one, Fetched(archive.stat().st_size, sha256, None), archive)
        return True

    def _unpack(self, one: Wanted, archive: Path, entry: FileEntry) -> None:
        into = f"{one.into}/" if one.into else ""
        before = self._record.files.get(one.file)
        ours = [name.removeprefix(into) for name in (before.members or {})] if before else []
        try:
            members = unpack(archive, one.unpack or "", self._raw / one.into, self._work / "unpacking", ours)
        except DamagedArchive as error:
            if archive == self._archive(one):
                archive.unlink()
                raise DamagedArchive(f"{error}. It is removed: run again to fetch it anew.") from None
            raise DamagedArchive(f"{error}. Replace {archive}, or remove it to have it fetched.") from None
        self._record.files[one.file] = replace(entry, members={f"{into}{name}": size for name, size in members.items()})
        self.write()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
