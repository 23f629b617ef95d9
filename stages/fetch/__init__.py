"""Brings a corpus's native files here: whole and right, or not at all.

* http.py      files from servers that drop, lie and change their mind
* archives.py  zip and tar from people one does not know
* files.py     what of a corpus stands already, what is to be fetched and unpacked
* youtube.py   web videos, of which many are gone
* packages.py  media that travel inside Python packages
* record.py    what was fetched, and what is known of the files that stand
* progress.py  what a running download tells
"""


class DownloadError(RuntimeError):
    """A source could not be fetched, or is not what its manifest says. The message says what to do."""
