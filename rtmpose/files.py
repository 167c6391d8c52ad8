"""Files read and written safely, where they lie, and the error that says what to mend."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import io
import json
import os
import re
import stat
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar
from urllib.parse import urlsplit

Value = TypeVar("Value")

FIXES = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there, or ask for a larger quota",
    errno.EFBIG: "free space there, or raise the limit of the size of files (ulimit -f)",
    errno.EROFS: "name a place that can be written, or mount it for writing",
    errno.EACCES: "get the permission, or name another place",
    errno.EPERM: "get the permission, or name another place",
    errno.EIO: "the disk fails: see the system's log",
    errno.ENOTDIR: "a file stands where a folder belongs: move it away",
    errno.EEXIST: "a file stands where a folder belongs: move it away",
    errno.EISDIR: "a folder stands where a file belongs: move it away, or name another file",
    errno.ENAMETOOLONG: "shorten the name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
YAML_BYTES = 1 << 20  # the largest descriptor has 8 kB
DIGITS = 40  # more need not be computed to know that a number is beyond 64 bits
LONG_NUMBER = re.compile(r"\d{19}")
DATA_NAME = re.compile(r"[\w][\w.-]{0,99}")
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class UserError(ValueError):
    """A mistake the user can mend: its text is one line that names the file, the key and the fix.

    Names and texts from a file may hold line breaks; they become spaces.
    """

    def __init__(self, text: str) -> None:
        super().__init__(unbroken(text))


def unbroken(text: str) -> str:
    """A text in one line, whatever names from a file it holds."""
    return " ".join(text.splitlines())


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """What goes wrong while `path` is written, such as a full disk, is a UserError naming it and the fix."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {disk_trouble(error)}") from error


def disk_trouble(error: OSError) -> str:
    """What the system says of a file, and what helps."""
    fix = FIXES.get(error.errno or 0, "see whether the path is right and the disk is well")
    reason = " ".join((error.strerror or str(error) or type(error).__name__).lower().split())
    return f"{reason[:200]}; {fix}"


def write_atomic(path: Path | str, content: str | bytes) -> Path:
    """Write `content` to `path` through a temporary name beside it and one rename; readers never see half a
    file. Links lead to the file that is replaced: see `destination`. UserError naming `path` where the disk
    does not take it.
    """
    target = destination(path)
    temporary = temporary_beside(target)
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            with suppress(OSError):  # the first error is the one to be told
                temporary.unlink(missing_ok=True)
    return Path(path)


def destination(path: Path | str, *, folder: bool = False) -> Path:
    """The file, or with `folder` the folder, that a writer puts in the place of `path`, absolute: where
    `path` is a link, what it leads to. A rename onto the link would cut it and leave its target as it was.
    A link to a read-only file is replaced itself: so DVC links outputs to its cache, which nobody may change.

    UserError naming `path` where something else stands there: a rename would destroy a device, a pipe or a
    socket, and opening one may wait for ever.
    """
    wanted, other = ("folder", "file") if folder else ("file", "folder")
    try:
        target = Path(os.path.realpath(path))
        # What the system itself links to, such as the pipe behind /dev/stdout, has no path to follow.
        found = _kind(os.stat(path).st_mode) if os.path.exists(path) else None
    except ValueError as error:  # a NUL in the name
        raise UserError(f"{str(path)!r}: no name of a {wanted} ({error}); name another") from None
    if target.is_symlink():
        raise UserError(f"{path}: cannot be written: its links lead in a circle; name another {wanted}")
    if found == other:
        raise UserError(f"{path}: cannot be written: a {other} stands where a {wanted} belongs; name another")
    if found not in (wanted, None):
        raise UserError(f"{path}: cannot be written: it is a {found}; name a {wanted}")
    if found == "file" and not os.stat(target).st_mode & stat.S_IWUSR:
        return Path(os.path.abspath(path))
    return target


def _kind(mode: int) -> str:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return kinds.get(stat.S_IFMT(mode), "device")


def temporary_beside(path: Path) -> Path:
    """A new name beside `path`, such as `.best.pt.1f0c9a3b.tmp`, for what takes its place by one rename when
    it is whole.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


ATTEMPTS = 5
FIRST_PAUSE = 0.5  # seconds; each further pause is twice as long


def retried(
    action: Callable[[], Value],
    first_pause: float = FIRST_PAUSE,
    *,
    is_final: Callable[[Exception], bool] = lambda error: False,
) -> Value:
    """What `action()` returns, tried again after pauses of which each is twice as long as the one before.

    The error of the last of five attempts is raised as it is, and so is one that `is_final`, which no further
    attempt would mend.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return action()
        except Exception as error:  # each store has failures of its own, and all of them may pass
            if is_final(error):
                raise
            time.sleep(first_pause * 2**attempt)
    return action()


def one_line(error: BaseException) -> str:
    """An error's text in one line; its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


BUSY = "another process works on this; wait for it or end it first"


@contextmanager
def locked(path: Path, *, wait: float | None = None, busy: str = BUSY) -> Iterator[None]:
    """Hold the lock file `path` during the block. The lock ends with its holder, however that ends.

    Where another process holds it for longer than `wait` seconds (None: for ever), UserError with the file
    and `busy`, which says what to do.
    """
    target = destination(path)
    with writing(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("a")
    with file:
        if wait is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        elif not _lock_within(file, wait):
            raise UserError(f"{path}: {busy}")
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a forked child may hold the file open for longer


def _lock_within(file: TextIO, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.2)


def append(path: Path | str, content: str | bytes) -> None:
    """Add `content` to the end of a file; UserError naming it where the disk does not take it."""
    with writing(path), destination(path).open("ab") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_csv(path: Path, fields: list[str], rows: list[dict[str, Any]]) -> None:
    """`rows` as CSV, those columns only."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def sha256_of(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes; UserError when there is no such file."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def data_file(folder: str, name: str) -> Path:
    """`name`.yaml of `datasets` or `deploy_targets`: from the checkout, else as shipped inside the installed
    package. UserError for a name that is none of a file there.
    """
    package = Path(__file__).resolve().parent
    fix = f"give a name that stands in {folder}/ without its ending, or the path of a YAML file"
    if not DATA_NAME.fullmatch(name):
        raise UserError(f"{name[:60]!r}: no name of a file in {folder}/; {fix}")
    for root in (package.parent, package / "_data"):
        if (root / folder / f"{name}.yaml").exists():
            return root / folder / f"{name}.yaml"
    raise UserError(f"{folder}/{name}.yaml: no such file in {package.parent} or the package; {fix}")


def without_secret(address: str) -> str:
    """An address as messages and results may show it: without user, password and query."""
    try:
        parts = urlsplit(address)
    except ValueError:  # brackets that hold no address
        return address.partition("@")[2] or address
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def is_there(path: Path) -> bool:
    """Whether there is such a file; no for a name that the system refuses, such as one that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_bytes(path: Path | str, fix: str = "put the file there") -> bytes:
    """A file's content; UserError naming it and the `fix` where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {fix}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {disk_trouble(error)}; {fix}") from None
    except ValueError as error:  # a name with a NUL in it
        raise UserError(f"{str(path)!r}: no name of a file ({error}); {fix}") from None


def read_yaml(path: Path) -> Any:
    """Parse a YAML file of at most a megabyte; errors name the file and the line.

    Refused besides what is no YAML: a key that stands twice, numbers that no 64-bit machine has, and aliases
    that grow without bound when they are followed.
    """
    import yaml  # late: much of the library reads none, and PyTorch is enough for it

    from rtmpose.strict_yaml import load

    content = read_bytes(path)
    if len(content) > YAML_BYTES:
        raise UserError(f"{path}: {len(content)} bytes are too many for YAML (at most {YAML_BYTES})")
    try:
        return load(content.decode("utf-8-sig"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"{path}{where}: not valid YAML: {reason}") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())[:200]}") from None


def read_json(path: Path | str, fix: str = "fetch or write it again") -> Any:
    """A JSON file; UserError naming it and the `fix` when it is missing, cut off or not JSON, when a key
    stands twice in one object, and when a whole number is beyond 64 bits. NaN and infinity pass.
    """
    return parse_json(read_bytes(path, fix), str(path), fix)


def parse_json(content: bytes, name: str, fix: str = "fetch or write it again") -> Any:
    """JSON text from the file, or whatever `name` stands for; errors as of `read_json`."""
    try:
        text = content.decode(json.detect_encoding(content))
        whole = _whole if LONG_NUMBER.search(text) else None
        found = json.loads(text, object_pairs_hook=_unique, parse_int=whole)
        if SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()  # pairs are characters, single ones are none
        return found
    except RecursionError:
        raise UserError(f"{name}: not valid JSON: nested too deeply; {fix}") from None
    except UnicodeError:
        raise UserError(f"{name}: not valid JSON: bytes or escapes in it are no characters; {fix}") from None
    except ValueError as error:
        raise UserError(f"{name}: not valid JSON, perhaps cut off ({str(error)[:200]}); {fix}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _whole(digits: str) -> int:
    if len(digits) > DIGITS or abs(int(digits)) >= 1 << 63:
        raise ValueError(f"{digits[:20]}… is a number beyond 64 bits")
    return int(digits)
