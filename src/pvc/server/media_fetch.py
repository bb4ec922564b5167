"""A picture or video that a request names: bytes of `data:` or an allowed host, or a file below an allowed directory.

Addresses of hosts are resolved once for every hop, only global ones are dialled, at the address that was checked, and
time and bytes are bounded. Files are opened without following links, and not read: their descriptor is passed on to
the decoding process. Leaves out decoding (`server/sandbox/pool.py`).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import ipaddress
import os
import re
import socket
import stat
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urljoin, urlsplit

from pvc.server.errors import ApiError
from pvc.server.settings import Settings

_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[\w.+-]*)*)(;base64)?,", re.ASCII | re.IGNORECASE)
_BREAKS = {ord(character): None for character in "\r\n"}  # lines of base64, as many encoders write it
HOPS = 3
UNICAST = ipaddress.ip_network("2000::/3")
TUNNELS = (ipaddress.ip_network("2001::/23"), ipaddress.ip_network("2002::/16"))  # Teredo and its like, 6to4
SMALL = 2**18  # characters
PORTS = {"http": 80, "https": 443}


def forbidden(why: str) -> ApiError:
    """What is not allowed; why is for the log alone, for what exists here is nobody's business."""
    return ApiError(403, "forbidden_source", "That source is not allowed here.", why=why)


@dataclass(frozen=True, eq=False)
class LocalFile:
    """A regular file, open for reading only. It is closed when nothing refers to it any more.

    `identity`: text that differs for another file, and for other contents: device, inode, bytes and times of change.
    """

    descriptor: int
    identity: str = field(init=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self.descriptor)
        status = os.fstat(self.descriptor)
        parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        object.__setattr__(self, "identity", "file " + " ".join(map(str, parts)))


async def read_source(url: str, settings: Settings) -> bytes | LocalFile:
    """The bytes behind an address, or the file.

    Raises:
        ApiError: 400 malformed, 403 not allowed, 413 too large, 502 and 504 of another host.
    """
    scheme = url[:8].partition(":")[0].lower()
    if scheme == "data":
        if len(url) < SMALL:
            return _data(url, settings.media.max_bytes)
        return await asyncio.to_thread(_data, url, settings.media.max_bytes)  # megabytes are not for the event loop
    if scheme in ("http", "https") and settings.hosts:
        try:
            async with asyncio.timeout(settings.fetch_seconds):
                return await _fetch(url, settings)
        except TimeoutError:
            raise ApiError(504, "upstream_timeout", "The other host took too long.") from None
    if scheme == "file" and settings.root is not None:
        return await asyncio.to_thread(_file, url, settings.root)
    allowed = {"http": "--allow-host", "https": "--allow-host", "file": "--root"}.get(scheme)
    raise forbidden(f"{allowed} is not set" if allowed else "only data:, and what is allowed besides")


def _data(url: str, most: int) -> bytes:
    found = _DATA.match(url)
    if found is None:
        raise ApiError(400, "malformed_data_url", "A data: address is malformed.")
    payload = url[found.end() :]
    if len(payload) > most * (4 if found[3] else 9) // 3 + 4:
        raise too_large()
    if not found[3]:
        if len(payload) > SMALL:
            raise ApiError(413, "too_many_bytes", "A data: address of such a size must be in base64.")
        data = unquote_to_bytes(payload)
    else:
        try:
            plain = payload.translate(_BREAKS) if "\n" in payload else payload
            data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(400, "malformed_base64", "The base64 of a data: address is malformed.") from None
    if len(data) > most:
        raise too_large()
    return data


def too_large() -> ApiError:
    """More bytes than one picture or video may have."""
    return ApiError(413, "too_many_bytes", "A picture or video has too many bytes.")


async def _fetch(url: str, settings: Settings) -> bytes:
    import httpx

    for _ in range(HOPS):
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").rstrip(".").lower()
            port = parts.port or PORTS.get(parts.scheme, 0)
        except ValueError:
            raise forbidden("not an address") from None
        if (
            host not in settings.hosts
            or parts.scheme not in ("http", "https")
            or parts.username
            or port not in PORTS.values()
        ):
            raise forbidden("not an allowed host, or another port than 80 and 443")
        address = await _resolved(host, port)
        # Dialled by the address that was checked; name and certificate stay the host's.
        try:
            dialled = httpx.URL(url).copy_with(host=address)
        except (httpx.InvalidURL, ValueError):
            raise forbidden("not an address") from None
        headers = {"host": host, "accept": "image/*, video/*", "accept-encoding": "identity"}
        try:
            async with (
                httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=settings.fetch_seconds) as client,
                client.stream("GET", dialled, headers=headers, extensions={"sni_hostname": host}) as response,
            ):
                if response.is_redirect:
                    url = _next(url, response.headers.get("location", ""))
                    continue
                if response.status_code != 200:
                    raise ApiError(502, "upstream_error", "The other host did not give the file.")
                return await _body(response, settings.media.max_bytes)
        except httpx.TimeoutException:
            raise ApiError(504, "upstream_timeout", "The other host took too long.") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise ApiError(502, "upstream_error", "The other host did not give the file.") from None
    raise ApiError(502, "too_many_redirects", "The other host redirects too often.")


def _next(url: str, location: str) -> str:
    """Where a redirect leads."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise forbidden("a redirect to what is no address") from None


async def _body(response: object, most: int) -> bytes:
    data = bytearray()
    async for piece in response.aiter_raw():  # type: ignore[attr-defined]
        data += piece
        if len(data) > most:
            raise too_large()
    return bytes(data)


async def _resolved(host: str, port: int) -> str:
    """One address of a host; refused unless all that it has are global."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise ApiError(502, "upstream_error", "The other host did not give the file.") from None
    addresses = [ipaddress.ip_address(one[4][0]) for one in found]
    if not addresses or not all(_global(address) for address in addresses):
        raise forbidden("the host's address is not a global one")
    return str(addresses[0])


def _global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is out there. Of IPv6 only unicast, without the ranges that lead to an IPv4 address inside them."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _global(address.ipv4_mapped)
        if address not in UNICAST or any(address in tunnel for tunnel in TUNNELS):
            return False
    return address.is_global and not address.is_multicast


def _file(url: str, root: Path) -> LocalFile:
    """A regular file below `root`; every step of the way is opened without following a link.

    The path may be the whole one, or begin at `root`.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise forbidden("not an address") from None
    names = [name for name in unquote(parts.path).split("/") if name not in ("", ".")]
    above = [name for name in str(root).split("/") if name]
    if names[: len(above)] == above:
        names = names[len(above) :]
    if parts.netloc not in ("", "localhost") or not names or ".." in names or any("\0" in name for name in names):
        raise forbidden("not a path below --root")
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for place, name in enumerate(names):
            last = place == len(names) - 1
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_NONBLOCK if last else os.O_DIRECTORY)
            inner = os.open(name, flags, dir_fd=handle)
            os.close(handle)
            handle = inner
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise forbidden("not a regular file")
        return LocalFile(os.dup(handle))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG, errno.ENXIO):
            raise forbidden(f"a file below --root: {os.strerror(error.errno).lower()}") from None
        raise
    finally:
        os.close(handle)


__all__ = ["LocalFile", "read_source"]
