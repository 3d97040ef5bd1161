"""Pages from addresses that a person named: to public machines only unless allowed, checked again after each redirect.

A name is resolved once, and the connection goes to the address that was checked: a name that changes its address in
between (DNS rebinding) leads nowhere else.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from dataclasses import dataclass
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import Request

from ayllu import __version__
from ayllu.errors import DataError, Refused

MOST_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
CHUNK = 1 << 16
new_jar = partial(CookieJar, DefaultCookiePolicy(strict_ns_domain=DefaultCookiePolicy.DomainStrict))
Form = tuple[bytes, str]                                 # what a form sends, and its media type


class NoPage(DataError):                                 # noqa: N818 - an answer, no fault
    """The site has no such page."""


@dataclass(frozen=True)
class Limits:
    """What a fetch may take, and whether it may reach this machine and its network."""

    bytes: int = 16 << 20
    timeout_s: float = 20.0                              # for all of it
    allow_private: bool = False
    hosts: frozenset[str] | None = None                  # no others, wherever a redirect leads; None: any


@dataclass(frozen=True)
class Page:
    """What came, from where in the end."""

    url: str
    data: bytes
    media: str
    charset: str | None


def is_url(text: str) -> bool:
    """Whether it is an address rather than a file."""
    return text.lower().startswith(("http://", "https://"))


def fetch(url: str, limits: Limits | None = None, form: Form | None = None, jar: CookieJar | None = None) -> Page:
    """The page at an address, or what it answers to a form. `jar`: the cookies of fetches that belong together."""
    limits, jar = limits or Limits(), new_jar() if jar is None else jar
    deadline = time.monotonic() + limits.timeout_s
    for _ in range(MOST_REDIRECTS + 1):
        found = _once(url, limits, deadline, form, jar)
        if isinstance(found, Page):
            return found
        url, form = urljoin(url, found), None            # as browsers do after 301 to 303
    raise DataError(f"{url} redirects more than {MOST_REDIRECTS} times: give the address where it ends")


def public_address(host: str, port: int, allow_private: bool) -> str:
    """An address of the host that may be connected to."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DataError(f"{host} can't be resolved ({error}): check the name and the network") from error
    addresses = [ipaddress.ip_address(str(one[4][0]).split("%")[0]) for one in found]
    if not allow_private and (private := [a for a in addresses if not _is_public(a)]):
        raise Refused(f"{host} is {private[0]}, which is no public address, so it isn't read (`ayllu translate` has "
                      "--allow-private)")
    return str(addresses[0])


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    inner = (address.ipv4_mapped or address.sixtofour) if isinstance(address, ipaddress.IPv6Address) else None
    nat64 = isinstance(address, ipaddress.IPv6Address) and address in ipaddress.ip_network("64:ff9b::/96")
    return not nat64 and not address.is_multicast and (inner is None or inner.is_global) and address.is_global


def _once(url: str, limits: Limits, deadline: float, form: Form | None, jar: CookieJar) -> Page | str:
    """The page, or where it redirects to."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise Refused(f"{url[:200]} is no plain http or https address: give one without a user's name")
    if limits.hosts is not None and parts.hostname not in limits.hosts:
        raise Refused(f"{url[:200]} leads to {parts.hostname}, which isn't among the machines that may be asked")
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except ValueError as error:
        raise DataError(f"{url[:200]} has no valid port ({error})") from error
    connection = _Connection(public_address(parts.hostname, port, limits.allow_private), parts.hostname, port,
                             parts.scheme == "https", limits, deadline)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        data, sent = (form[0], {"content-type": form[1]}) if form else (None, {})
        jar.add_cookie_header(asked := Request(url))
        connection.request("POST" if form else "GET", path, data, {
            **sent, **asked.unredirected_hdrs, "user-agent": f"ayllu/{__version__}", "accept-encoding": "identity",
            "accept": "text/html,application/xhtml+xml,*/*;q=0.5"})
        answer = connection.getresponse()
        jar.extract_cookies(answer, asked)
        if answer.status in REDIRECTS and (to := answer.getheader("location")):
            return to
        if answer.status in (404, 410):
            raise NoPage(f"{url} answered {answer.status} {answer.reason}: look at it in a browser")
        if answer.status != 200:
            raise DataError(f"{url} answered {answer.status} {answer.reason}: look at it in a browser")
        data = _read(answer, url, limits, deadline)
        return Page(url, data, answer.headers.get_content_type(), answer.headers.get_content_charset())
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise DataError(f"{url} can't be read ({error}): check the address and the network") from error
    finally:
        connection.close()


def _read(answer: http.client.HTTPResponse, url: str, limits: Limits, deadline: float) -> bytes:
    pieces, size = [], 0
    while piece := answer.read1(CHUNK):
        size += len(piece)
        if size > limits.bytes:
            raise DataError(f"{url} has more than {limits.bytes:,} bytes, the limit: save it and translate the file")
        if time.monotonic() > deadline:
            raise DataError(f"{url} took longer than {limits.timeout_s:g} seconds: try again, or save it first")
        pieces.append(piece)
    return b"".join(pieces)


class _Connection(http.client.HTTPConnection):
    """A connection to the address that was checked, speaking to the host by its name."""

    def __init__(self, address: str, host: str, port: int, is_secure: bool, limits: Limits, deadline: float) -> None:
        super().__init__(host, port, timeout=limits.timeout_s)
        self.address, self.is_secure, self.deadline = address, is_secure, deadline
        self.default_port = 443 if is_secure else 80     # what the Host header leaves out

    def connect(self) -> None:
        """Dial the address; a certificate is still checked against the host's name."""
        left = max(0.1, self.deadline - time.monotonic())
        dialled: Any = socket.create_connection((self.address, self.port), left)
        if self.is_secure:
            dialled = ssl.create_default_context().wrap_socket(dialled, server_hostname=self.host)
        self.sock = dialled
