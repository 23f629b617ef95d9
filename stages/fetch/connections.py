"""Requests to servers: redirects, logins, at most two streams a host, and errors in words that give no secret away."""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urljoin, urlsplit

import requests

from stages.fetch import DownloadError
from stages.fetch.parts import Again, Remote

USER_AGENT = f"talkingface (fetches research corpora; resumes; two streams a host) python-requests/{requests.__version__}"
STREAMS_PER_HOST = 2
MOST_REDIRECTS = 10


class Connections:
    """Used by many threads; each keeps its own connections open.

    connect_s, read_s: seconds until silence counts as no answer.
    """

    def __init__(self, connect_s: float, read_s: float):
        self._timeout = (connect_s, read_s)
        self._of_thread = threading.local()
        self._streams: dict[str, threading.Semaphore] = {}

    @contextmanager
    def open(self, remote: Remote, headers: Mapping[str, str]) -> Iterator[requests.Response]:
        """The answer to a request for the file, redirects followed; its body is not read yet. Raises Again, DownloadError.

        The login goes to the host that the manifest names and to no other. Nothing goes from https on to http.
        """
        url, form = remote.url, credentials(remote)
        # Bytes are counted and resumed, so they must be the file's own, not those of a compressed copy.
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        for _ in range(MOST_REDIRECTS):
            with self._stream(url), self._send(remote, url, form, headers) as response:
                location = self._session().get_redirect_target(response)
                if location is None:
                    yield response
                    return
            here, there = urlsplit(url), urlsplit(urljoin(url, location))
            if there.scheme not in ("http", "https") or (here.scheme, there.scheme) == ("https", "http"):
                raise DownloadError(f"{remote.name}: {shown(remote.url)} leads from {here.scheme} to {there.scheme}: refused")
            if response.status_code not in (307, 308):
                form = {}
            elif form and here.netloc != there.netloc:
                raise DownloadError(f"{remote.name}: {here.hostname} would send the login on to {there.hostname}: refused")
            url = there.geturl()
        raise DownloadError(f"{remote.name}: {shown(remote.url)} redirects more than {MOST_REDIRECTS} times")

    def _stream(self, url: str) -> threading.Semaphore:
        return self._streams.setdefault(urlsplit(url).hostname or "", threading.Semaphore(STREAMS_PER_HOST))

    def _send(self, remote: Remote, url: str, form: dict[str, str], headers: Mapping[str, str]) -> requests.Response:
        """Errors are told in own words: those of the library spell out addresses, which may be signed."""
        host = urlsplit(url).hostname
        try:
            return self._session().request(
                "POST" if form else "GET",
                url,
                data=form,
                headers=headers,
                stream=True,
                allow_redirects=False,
                timeout=self._timeout,
            )
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                raise Again(f"no safe connection to {host}") from None
            raise DownloadError(
                f"{remote.name}: the certificate of {host} is not valid here, and certificates are always checked. If your "
                f"network has an authority of its own, name its file in REQUESTS_CA_BUNDLE; else {by_hand(remote)}."
            ) from None
        except requests.exceptions.Timeout:
            raise Again(f"no answer from {host}") from None
        except requests.exceptions.ConnectionError:
            raise Again(f"no connection to {host}") from None
        except requests.exceptions.RequestException as error:
            raise DownloadError(f"{remote.name}: {shown(remote.url)} cannot be asked for ({type(error).__name__})") from None

    def _session(self) -> requests.Session:
        if not hasattr(self._of_thread, "session"):
            self._of_thread.session = requests.Session()
            # Else the library would send what ~/.netrc says, its default entry too, to every host on the way.
            self._of_thread.session.auth = lambda request: request
        session: requests.Session = self._of_thread.session
        return session


def credentials(remote: Remote) -> dict[str, str]:
    """The fields to post: from the environment, else from ~/.netrc. DownloadError names the variables that are missing."""
    values = {name: os.environ.get(variable, "") for name, variable in remote.form.items()}
    if remote.form and not all(values.values()) and (known := requests.utils.get_netrc_auth(remote.url)):
        login, password = known
        values = {name: value or (password if "pass" in name.lower() else login) for name, value in values.items()}
    if missing := [remote.form[name] for name, value in values.items() if not value]:
        host, variables = urlsplit(remote.url).hostname, " and ".join(missing)
        raise DownloadError(
            f"{remote.name}: {host} wants a login. Register{_at(remote.page)}, set {variables} in the environment (or write the "
            f"login into ~/.netrc), then run again; or {by_hand(remote)}."
        )
    return values


def login_refused(remote: Remote) -> DownloadError:
    host, variables = urlsplit(remote.url).hostname, " and ".join(remote.form.values())
    return DownloadError(
        f"{remote.name}: {host} did not accept the login, or waits for its licence to be accepted. Check {variables}, accept the "
        f"licence{_at(remote.page)}, then run again; or {by_hand(remote)}."
    )


def by_hand(remote: Remote) -> str:
    return f"place the file by hand as {remote.place}"


def shown(url: str) -> str:
    """The address without what may be secret in it: its user, password and query."""
    return address(url).partition("?")[0]


def address(url: str) -> str:
    """The address without its user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url


def _at(page: str) -> str:
    return f" at {page}" if page else ""
