"""Fetching of the media that a request names: `data:` URLs, allowed hosts, files below an allowed directory.

A host is resolved once for every hop. Only global addresses are used, and the connection goes to the checked address.
Time and bytes are limited. Files are opened without following links and are not read: the worker process gets the
descriptor (`server/sandbox/pool.py`). Called by `chat_completions.py`.
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

_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?((?:;[\w.+-]+=[\w.+-]*)*)(;base64)?,", re.ASCII | re.IGNORECASE)
_LINE_BREAKS = {ord(character): None for character in "\r\n"}  # many encoders break base64 into lines
MAX_HOPS = 3  # requests for one medium, redirects included
UNICAST = ipaddress.ip_network("2000::/3")
TUNNELS = (ipaddress.ip_network("2001::/23"), ipaddress.ip_network("2002::/16"))  # Teredo and similar, 6to4
MAX_INLINE_LENGTH = 2**18  # characters of a data: URL that is decoded in the event loop, or is not in base64
PORTS = {"http": 80, "https": 443}


def build_forbidden_error(log_reason: str) -> ApiError:
    """Build the error of a source that is not allowed.

    The reason is logged and never sent: it would reveal which files and hosts exist.
    """
    return ApiError(403, "forbidden_source", "That source is not allowed here.", log_reason=log_reason)


@dataclass(frozen=True, eq=False)
class LocalFile:
    """A regular file that is open for reading only. It is closed when the object is garbage-collected.

    Attributes:
        descriptor: the file descriptor.
        identity: text that differs for other files and other contents: device, inode, size and times of change.
    """

    descriptor: int
    identity: str = field(init=False)

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self.descriptor)
        status = os.fstat(self.descriptor)
        parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        object.__setattr__(self, "identity", "file " + " ".join(map(str, parts)))


async def fetch_media(url: str, settings: Settings) -> bytes | LocalFile:
    """Fetch the bytes of a URL, or open its file.

    Args:
        url: a `data:`, `http:`, `https:` or `file:` URL.
        settings: allowed hosts, allowed directory, and limits of bytes and time.

    Returns:
        The bytes, or the open file of a `file:` URL.

    Raises:
        ApiError: 400 malformed, 403 not allowed, 413 too large, 502 and 504 failure or timeout of the other host.
    """
    scheme = url[:8].partition(":")[0].lower()
    if scheme == "data":
        if len(url) < MAX_INLINE_LENGTH:
            return _decode_data_url(url, settings.media.max_bytes)
        return await asyncio.to_thread(_decode_data_url, url, settings.media.max_bytes)  # would block the event loop
    if scheme in ("http", "https") and settings.hosts:
        try:
            async with asyncio.timeout(settings.fetch_seconds):
                return await _fetch_url(url, settings)
        except TimeoutError:
            raise ApiError(504, "upstream_timeout", "The other host took too long.") from None
    if scheme == "file" and settings.root is not None:
        return await asyncio.to_thread(_open_file, url, settings.root)
    option = {"http": "--allow-host", "https": "--allow-host", "file": "--root"}.get(scheme)
    raise build_forbidden_error(f"{option} is not set" if option else "only data:, and what is allowed besides")


def _decode_data_url(url: str, max_bytes: int) -> bytes:
    match = _DATA_URL.match(url)
    if match is None:
        raise ApiError(400, "malformed_data_url", "A data: address is malformed.")
    payload, is_base64 = url[match.end() :], bool(match[3])
    if len(payload) > max_bytes * (4 if is_base64 else 9) // 3 + 4:
        raise build_too_large_error()
    if not is_base64:
        if len(payload) > MAX_INLINE_LENGTH:
            raise ApiError(413, "too_many_bytes", "A data: address of such a size must be in base64.")
        data = unquote_to_bytes(payload)
    else:
        try:
            plain = payload.translate(_LINE_BREAKS) if "\n" in payload else payload
            data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ApiError(400, "malformed_base64", "The base64 of a data: address is malformed.") from None
    if len(data) > max_bytes:
        raise build_too_large_error()
    return data


def build_too_large_error() -> ApiError:
    """Build the error of a picture or video with too many bytes."""
    return ApiError(413, "too_many_bytes", "A picture or video has too many bytes.")


async def _fetch_url(url: str, settings: Settings) -> bytes:
    import httpx

    for _ in range(MAX_HOPS):
        host, port = _check_url(url, settings)
        address = await _resolve_host(host, port)
        # Connect to the checked address; host name and certificate stay those of the host.
        try:
            pinned_url = httpx.URL(url).copy_with(host=address)
        except (httpx.InvalidURL, ValueError):
            raise build_forbidden_error("not an address") from None
        headers = {"host": host, "accept": "image/*, video/*", "accept-encoding": "identity"}
        try:
            async with (
                httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=settings.fetch_seconds) as client,
                client.stream("GET", pinned_url, headers=headers, extensions={"sni_hostname": host}) as response,
            ):
                if response.is_redirect:
                    url = _resolve_redirect(url, response.headers.get("location", ""))
                    continue
                if response.status_code != 200:
                    raise ApiError(502, "upstream_error", "The other host did not give the file.")
                return await _read_body(response, settings.media.max_bytes)
        except httpx.TimeoutException:
            raise ApiError(504, "upstream_timeout", "The other host took too long.") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise ApiError(502, "upstream_error", "The other host did not give the file.") from None
    raise ApiError(502, "too_many_redirects", "The other host redirects too often.")


def _check_url(url: str, settings: Settings) -> tuple[str, int]:
    """Return host and port of a URL. Raises ApiError 403 if they are not allowed."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".").lower()
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError:
        raise build_forbidden_error("not an address") from None
    if (
        host not in settings.hosts
        or parts.scheme not in ("http", "https")
        or parts.username
        or port not in PORTS.values()
    ):
        raise build_forbidden_error("not an allowed host, or another port than 80 and 443")
    return host, port


def _resolve_redirect(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise build_forbidden_error("a redirect to what is no address") from None


async def _read_body(response: object, max_bytes: int) -> bytes:
    data = bytearray()
    async for piece in response.aiter_raw():  # type: ignore[attr-defined]
        data += piece
        if len(data) > max_bytes:
            raise build_too_large_error()
    return bytes(data)


async def _resolve_host(host: str, port: int) -> str:
    """Return one address of a host. Raises ApiError 403 unless all of its addresses are global."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise ApiError(502, "upstream_error", "The other host did not give the file.") from None
    addresses = [ipaddress.ip_address(info[4][0]) for info in infos]
    if not addresses or not all(_is_global(address) for address in addresses):
        raise build_forbidden_error("the host's address is not a global one")
    return str(addresses[0])


def _is_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether an address is global: for IPv6 only unicast, without ranges that tunnel to an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_global(address.ipv4_mapped)
        if address not in UNICAST or any(address in tunnel for tunnel in TUNNELS):
            return False
    return address.is_global and not address.is_multicast


def _open_file(url: str, root: Path) -> LocalFile:
    """Open a regular file below `root`, one path component at a time and without following links.

    The path may be the whole one, or relative to `root`.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise build_forbidden_error("not an address") from None
    names = [name for name in unquote(parts.path).split("/") if name not in ("", ".")]
    root_names = [name for name in str(root).split("/") if name]
    if names[: len(root_names)] == root_names:
        names = names[len(root_names) :]
    if parts.netloc not in ("", "localhost") or not names or ".." in names or any("\0" in name for name in names):
        raise build_forbidden_error("not a path below --root")
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for index, name in enumerate(names):
            is_last = index == len(names) - 1
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_NONBLOCK if is_last else os.O_DIRECTORY)
            inner = os.open(name, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise build_forbidden_error("not a regular file")
        return LocalFile(os.dup(descriptor))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG, errno.ENXIO):
            raise build_forbidden_error(f"a file below --root: {os.strerror(error.errno).lower()}") from None
        raise
    finally:
        os.close(descriptor)


__all__ = ["LocalFile", "fetch_media"]
