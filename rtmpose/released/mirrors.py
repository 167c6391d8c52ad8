"""Where files are looked for: the cache itself, the site's own mirrors, then the publisher.

`RTMPOSE_MIRRORS` lists mirrors, parted by spaces or commas; so does `mirrors:` in `rtmpose/mirrors.yaml` of
`$XDG_CONFIG_HOME` (else `~/.config`). A mirror is an address (`https://…`, `file:///…`) or a folder. Below it
a file lies at its path in the catalogue, or in a folder also under its own name alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from rtmpose.config.base import Strict, parse
from rtmpose.files import UserError, is_there, read_yaml, without_secret
from rtmpose.released.catalogue import Published, catalogue

MIRRORS, CACHE = "RTMPOSE_MIRRORS", "RTMPOSE_CACHE"
SCHEMES = ("https", "http")


class MirrorFile(Strict):
    """The file that lists a site's mirrors."""

    mirrors: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """One place where a file may be: an address, or a path on this machine.

    `trusted`: what comes from there is taken without a hash that proves it. That is the publisher over HTTPS,
    and whatever lies on this machine already.
    """

    address: str | Path
    trusted: bool

    def __str__(self) -> str:
        return without_secret(self.address) if isinstance(self.address, str) else str(self.address)


def cache_folder() -> Path:
    """Where fetched files are kept: `RTMPOSE_CACHE`, else `rtmpose` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if given := os.environ.get(CACHE):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtmpose"


def mirror_file() -> Path:
    """The file that lists a site's mirrors; it need not be there."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "rtmpose" / "mirrors.yaml"


def site_mirrors() -> tuple[str, ...]:
    """The mirrors of the variable, else of the file; UserError for a file that is not of that form."""
    if given := os.environ.get(MIRRORS, "").replace(",", " ").split():
        return tuple(given)
    path = mirror_file()
    return parse(MirrorFile, read_yaml(path), path).mirrors if is_there(path) else ()


def places(published: Published, folder: Path) -> list[Place]:
    """Where to look for a file, in order: by hand in `folder`, on the site's mirrors, at the publisher's.

    UserError for a mirror that is neither a folder nor an address of HTTP or of a file.
    """
    found = [Place(folder / published.file, trusted=True)]
    for mirror in site_mirrors():
        found += _below(mirror, published, trusted=False)
    for mirror in catalogue().mirrors:
        found += _below(mirror, published, trusted=mirror.startswith("https:"))
    return found


def _below(mirror: str, published: Published, *, trusted: bool) -> Sequence[Place]:
    parts = urlsplit(mirror)
    if parts.scheme in SCHEMES and parts.hostname:
        return [Place(f"{mirror.rstrip('/')}/{quote(published.path)}", trusted)]
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        folder = Path(unquote(parts.path))
    elif not parts.scheme or mirror.startswith("/"):
        folder = Path(mirror).expanduser()
    else:
        raise UserError(
            f"{MIRRORS}: {without_secret(mirror)[:200]!r} is no mirror; give https://HOST/PATH, "
            "file:///PATH or a folder"
        )
    return [Place(folder / published.path, trusted=True), Place(folder / published.file, trusted=True)]


def publisher(path: str) -> str:
    """The publisher's address of a path."""
    return f"{catalogue().mirrors[-1].rstrip('/')}/{quote(path)}"
