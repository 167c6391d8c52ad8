"""Released weights, fetched once: looked for in several places, proven, and kept under a name of their own.

`pull("rtmpose-m-body17.pth")` gives the file in the cache. Beside it lies a receipt, `NAME.json`: where it is
from, its SHA-256, and by what it was proven. A file that no longer has that hash is fetched again.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from rtmpose.files import FIRST_PAUSE, UserError, locked, sha256_of, write_atomic, writing
from rtmpose.released.catalogue import Released, find
from rtmpose.released.contents import fit
from rtmpose.released.mirrors import Place, cache_folder, places
from rtmpose.released.transfer import MISSING, Failed, Tell, copy, discard, fetch, silent
from rtmpose.released.unpack import extract

UNPROVEN = "contents"
PROOFS = {
    "asked": "its SHA-256 is the one asked for",
    "catalogue": "its SHA-256 is the catalogue's",
    "inner": "the SHA-256 of the ONNX file in it is the catalogue's",
    "digits": "its SHA-256 begins with the digits in its name",
    UNPROVEN: "no SHA-256 is known that it could be compared with; it is of the right shapes",
}


@dataclass(frozen=True)
class Receipt:
    """Which file of the publisher lies here, where it was fetched, its hash as published (`fetched_sha256`)
    and as it lies here (`sha256`), and by which of `PROOFS` it was taken.
    """

    file: str
    address: str
    fetched_sha256: str
    sha256: str
    proof: str

    @property
    def line(self) -> str:
        """The receipt in words."""
        return f"{self.file} from {self.address}; {PROOFS.get(self.proof, self.proof)}"


def weights_folder(cache: Path | None = None) -> Path:
    """Where released weights are kept in a cache (None: the user's)."""
    return (cache or cache_folder()) / "weights"


def pull(
    name: str,
    cache: Path | None = None,
    *,
    sha256: str | None = None,
    tell: Tell = silent,
    pause: float = FIRST_PAUSE,
) -> Path:
    """The file of released weights, fetched now or before. An ONNX file is taken out of its zip; that of a
    pose network gets our card, so that it runs like one that we exported.

    `sha256` (hex, of the file as the publisher has it) counts more than what the catalogue says. `tell` hears
    of the bytes that have come; `pause` is the first pause between attempts, in seconds.

    Several processes may ask for the same: one fetches, the others wait. A part that was cut off is continued
    by the next call. UserError with every place that was tried and why it did not do, and with what to do by
    hand; UserError for an unknown name, and where the disk is full.
    """
    released = find(name)
    path = weights_folder(cache) / released.name
    with locked(path.with_name(f".{path.name}.lock")):
        known = receipt_of(path)
        if known is None or not _still_right(known, path, released, sha256):
            _fetch_anywhere(released, path, sha256, tell, pause)
    return path


def receipt_of(path: Path) -> Receipt | None:
    """What is known of a file in the cache; None where it has no receipt, or one that is damaged."""
    try:
        return Receipt(**json.loads(_receipt(path).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _receipt(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _still_right(known: Receipt, path: Path, released: Released, wanted: str | None) -> bool:
    if known.file != released.published.file or wanted not in (None, known.fetched_sha256):
        return False
    return path.is_file() and sha256_of(path) == known.sha256


def _fetch_anywhere(released: Released, path: Path, wanted: str | None, tell: Tell, pause: float) -> None:
    reasons = []
    by_hand, *others = places(released.published, path.parent)
    for place in (by_hand, *others):
        try:
            _fetch_from(place, released, path, wanted, tell, pause)
            return
        except Failed as reason:
            if place is not by_hand or str(reason) != MISSING:
                reasons.append(f"{place}: {reason}")
    raise UserError(
        f"{released.name}: not to be had: {'; '.join(reasons)}. By hand: put {released.published.file} into "
        f"{path.parent} and run this again, or name a mirror in RTMPOSE_MIRRORS"
    )


def _fetch_from(
    place: Place, released: Released, path: Path, wanted: str | None, tell: Tell, pause: float
) -> None:
    """Fetch from one place, prove and keep. A part that was continued and turns out wrong is fetched once
    more from its beginning: the disk may have lost some of it.
    """
    exactly = released.published.bytes if wanted is None else None
    of_place = hashlib.sha256(str(place.address).encode()).hexdigest()[:8]
    part = path.with_name(f".{path.name}.{of_place}.part")
    continued = part.exists()

    def once() -> None:
        if isinstance(place.address, str):
            fetched = fetch(place.address, part, exactly=exactly, tell=tell, pause=pause)
        else:
            fetched = copy(place.address, part, exactly=exactly, tell=tell)
        _keep(fetched, part, place, released, path, wanted)

    try:
        once()
    except Failed:
        if not continued or part.exists():
            raise
        once()


def _keep(fetched: str, part: Path, place: Place, released: Released, path: Path, wanted: str | None) -> None:
    """Prove what was fetched, and put it in its place; Failed, with the part removed, where it is wrong."""
    whole = part
    try:
        digest = fetched
        if released.form == "onnx":
            whole = part.with_name(part.name + ".onnx")
            digest = extract(part, whole, released.published.member)
        proof = proven(released, fetched, digest, wanted)
        fit(released, whole)
        if proof == UNPROVEN and not place.trusted:
            raise Failed(f"from a mirror, and nothing proves its SHA-256 {fetched}; {_override(fetched)}")
        known = Receipt(released.published.file, str(place), fetched, sha256_of(whole), proof)
        # The receipt first: killed in between, the file beside it has another hash and is fetched again.
        write_atomic(_receipt(path), json.dumps(asdict(known), indent=2) + "\n")
        with writing(path):
            _synced(whole)
            os.replace(whole, path)
        for other in path.parent.glob(f".{path.name}.*.part*"):
            other.unlink(missing_ok=True)
    finally:
        whole.unlink(missing_ok=True)
        discard(part)


def proven(released: Released, fetched: str, digest: str, wanted: str | None) -> str:
    """By which of `PROOFS` a file is right: `fetched` is the SHA-256 of the publisher's file, `digest` that
    of the ONNX file in it. Failed where a hash says that it is another file.
    """
    published, override = released.published, _override(fetched)
    expected, found, proof, what = published.sha256, fetched, "catalogue", "file"
    if wanted is not None:
        expected, proof, override = wanted, "asked", "--sha256 asks for that"
    elif expected is None and published.inner_sha256 is not None:
        expected, found, proof, what = published.inner_sha256, digest, "inner", "ONNX file"
    if expected is not None:
        if found != expected:
            raise Failed(f"another {what}: its SHA-256 is {found}, not {expected}; {override}")
        return proof
    if released.form == "pth" and published.digits and fetched.startswith(published.digits):
        return "digits"
    return UNPROVEN


def _override(fetched: str) -> str:
    return f"if you know that it is the right one, give --sha256 {fetched}"


def _synced(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
