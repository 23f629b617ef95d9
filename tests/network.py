"""What a command sends further than this machine: `python -m tests.network make run` tells, and fails where there is anything.

The kernel is asked, by strace, of all processes of the command, so that native code and other languages are seen too. A name
that is looked up counts as sent, also where the resolver is on this machine.
"""

import ipaddress
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

_ASKED = ["-f", "--seccomp-bpf", "--decode-pids=comm", "-qq", "-e", "signal=none", "-e", "trace=connect,sendto,sendmsg,sendmmsg"]
_SENT = re.compile(r'(?P<who>\S+) .*sin6?_port=htons\((?P<port>\d+)\).*?(inet_addr\(|inet_pton\(AF_INET6, )"(?P<address>[^"]+)"')
DNS = 53


def recorded(command: Sequence[str], log: Path) -> list[str]:
    """The command that does what `command` does and leaves in `log` what `beyond` reads."""
    return ["strace", *_ASKED, "-o", str(log), *command]


def beyond(log: Path) -> Iterator[str]:
    """The connections and datagrams to other machines, and the lookups of names, one line for each."""
    for line in log.read_text(errors="replace").splitlines():
        if sent := _SENT.match(line):
            address = ipaddress.ip_address(sent["address"])
            address = getattr(address, "ipv4_mapped", None) or address
            if not address.is_loopback or int(sent["port"]) == DNS:
                yield f"{sent['who']} → {sent['address']}, port {sent['port']}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        code = subprocess.run(recorded(sys.argv[1:], Path(folder, "log"))).returncode
        found = list(beyond(Path(folder, "log")))
    print("\n".join(found) or "nothing left this machine")
    sys.exit(code or bool(found))
