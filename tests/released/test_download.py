"""Fetching from a server that drops, lies, errs and changes; proving, mirrors, and two at once."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rtmpose.cli.released import pull as pull_command
from rtmpose.files import UserError
from rtmpose.inference.photo import open_model
from rtmpose.released import transfer
from rtmpose.released.download import Receipt, pull, receipt_of
from tests.released.conftest import (
    DIGITS,
    FILES,
    NAMED,
    POSE_ZIP,
    PTH,
    UNNAMED,
    Publisher,
    forget,
    write_catalogue,
)

SHA256 = hashlib.sha256(PTH).hexdigest()
HALF = len(PTH) // 2


def receipt(path: Path) -> Receipt:
    found = receipt_of(path)
    assert found is not None
    return found


def left(tmp_path: Path) -> list[str]:
    """What lies in the cache besides the lock."""
    return sorted(
        path.name for path in (tmp_path / "cache/weights").iterdir() if not path.name.endswith(".lock")
    )


def test_a_file_is_fetched_once_and_proven_by_the_digits_in_its_name(
    publisher: Publisher, tmp_path: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    path = pull("named-one", tell=lambda done, total: told.append((done, total)))
    assert path == tmp_path / "cache/weights/named-one.pth" and path.read_bytes() == PTH
    assert receipt(path) == Receipt(
        Path(NAMED).name, f"{publisher.address}/{NAMED}", SHA256, SHA256, "digits"
    )
    assert told[-1] == (len(PTH), len(PTH)) and left(tmp_path) == ["named-one.pth", "named-one.pth.json"]
    assert pull("named-one.pth") == path and len(publisher.asked) == 1
    path.write_bytes(PTH[:-1] + b"?")  # damaged since
    assert pull("named-one").read_bytes() == PTH and len(publisher.asked) == 2


@pytest.mark.parametrize(
    ("conduct", "ranges"),
    [
        (["cut", "whole"], [None, f"bytes={HALF}-"]),
        (["cut", "cut", "whole"], [None, f"bytes={HALF}-", f"bytes={HALF + (len(PTH) - HALF) // 2}-"]),
        (["cut", "changed"], [None, f"bytes={HALF}-"]),  # If-Range: the new version comes whole
        (["plaincut", "plain"], [None, f"bytes={HALF}-"]),
        (["broken", "whole"], [None, None]),
    ],
)
def test_what_broke_off_goes_on_where_the_server_still_has_the_same(
    publisher: Publisher, conduct: list[str], ranges: list[str | None]
) -> None:
    publisher.conduct = conduct
    assert pull("named-one", pause=0.001).read_bytes() == PTH
    assert publisher.ranges == ranges


@pytest.mark.parametrize(
    ("conduct", "reason", "requests"),
    [
        ("gone", "answered 404 Not Found", 1),
        ("broken", "answered 500 Internal Server Error; tried again and again", 5),
        ("loop", "leads on more than 5 times", 6),
        ("leave", r"leads on to an address of another kind \(ftp:\)", 1),
        ("page", r"answered with a page \(text/html\) instead of the file", 1),
        ("rawpage", "not these weights: not a readable checkpoint", 1),
        ("short", "not these weights: not a readable checkpoint", 1),
        ("other", "from a mirror, and nothing proves its SHA-256", 1),
        ("huge", r"has 1099511627776 bytes; more than \d+ are not fetched", 1),
    ],
)
def test_what_is_not_the_file_is_refused_in_one_line_that_says_what_to_do(
    publisher: Publisher, tmp_path: Path, conduct: str, reason: str, requests: int
) -> None:
    publisher.conduct = [conduct]
    with pytest.raises(
        UserError, match=rf"^named-one\.pth: not to be had: [^\n]*({reason})[^\n]*$"
    ) as caught:
        pull("named-one", pause=0.001)
    by_hand = f"By hand: put {Path(NAMED).name} into {tmp_path / 'cache/weights'} and run this again"
    assert by_hand in str(caught.value)
    assert len(publisher.asked) == requests and left(tmp_path) == []


def test_a_server_that_promises_more_than_it_has_ends_and_keeps_the_part(
    publisher: Publisher, tmp_path: Path
) -> None:
    publisher.conduct = ["long"]
    with pytest.raises(UserError, match=r"no more of it than was fetched|broke off"):
        pull("named-one", pause=0.001)
    assert "named-one.pth" not in left(tmp_path)
    publisher.conduct = ["whole"]
    assert pull("named-one", pause=0.001).read_bytes() == PTH


def test_a_part_that_lost_some_of_itself_is_fetched_anew(publisher: Publisher, tmp_path: Path) -> None:
    publisher.conduct = ["cut", "gone"]
    with pytest.raises(UserError, match="answered 404"):
        pull("named-one", pause=0.001)
    [part] = (tmp_path / "cache/weights").glob(".*.part")
    part.write_bytes(bytes(part.stat().st_size))
    publisher.conduct = ["whole"]
    assert pull("named-one", pause=0.001).read_bytes() == PTH
    assert publisher.ranges[-2:] == [f"bytes={HALF}-", None]


def test_old_bytes_never_stand_beside_the_note_of_a_new_version(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process is killed between the two writes."""
    publisher.conduct = ["cut", "changed"]

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    written = transfer._written
    calls: Iterator[Callable[..., str]] = iter([written, killed])
    monkeypatch.setattr(transfer, "_written", lambda *args: next(calls)(*args))
    with pytest.raises(KeyboardInterrupt):
        pull("named-one", pause=0.001)
    monkeypatch.setattr(transfer, "_written", written)
    publisher.conduct = ["whole"]
    assert pull("named-one", pause=0.001).read_bytes() == PTH
    assert publisher.ranges[-1] is None


def test_an_answer_without_a_length_has_to_reach_the_known_one(tmp_path: Path) -> None:
    """Such an answer ends where the connection does, for whatever reason."""

    class Endless(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(bytes(500 if asked else 1000))
            asked.append(self.path)

    asked: list[str] = ["first"]
    with HTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(transfer.Failed, match="ended after 500 of 1000 bytes"):
            address = f"http://127.0.0.1:{server.server_port}/x"
            transfer.fetch(address, tmp_path / "x.part", exactly=1000, pause=1e-3)
        server.shutdown()
    assert len(asked) > 2, "it was tried again"


def test_a_part_that_is_whole_already_is_taken(publisher: Publisher, tmp_path: Path) -> None:
    publisher.conduct = ["cut", "gone"]
    with pytest.raises(UserError):
        pull("named-one", pause=0.001)
    [part] = (tmp_path / "cache/weights").glob(".*.part")
    part.write_bytes(PTH)
    publisher.conduct = ["whole"]
    assert pull("named-one", pause=0.001).read_bytes() == PTH and len(publisher.asked) == 3


PROGRAM = """
import sys
from pathlib import Path
from rtmpose.released import catalogue
catalogue.read_catalogue.__defaults__ = (Path(sys.argv[1]),)
from rtmpose.released.download import pull
print(pull(sys.argv[2], pause=0.01))
"""


def started(tmp_path: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "catalogue.yaml"), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_killed_download_goes_on_in_the_next_one(publisher: Publisher, tmp_path: Path) -> None:
    publisher.conduct = ["waits", "whole"]
    process = started(tmp_path, "named-one")
    deadline = time.monotonic() + 60
    while not (parts := [p for p in (tmp_path / "cache").rglob(".*.part") if p.stat().st_size == HALF]):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(parts) == 1 and left(tmp_path)[-1] == parts[0].name + ".json"
    assert pull("named-one", pause=0.001).read_bytes() == PTH
    assert publisher.ranges == [None, f"bytes={HALF}-"]


def test_of_two_processes_one_fetches(publisher: Publisher, tmp_path: Path) -> None:
    publisher.conduct = ["waits", "whole"]
    both = [started(tmp_path, "boxes-one") for _ in range(2)]
    deadline = time.monotonic() + 60
    while not publisher.asked:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    publisher.waiting.set()
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert outputs == [f"{tmp_path / 'cache/weights/boxes-one.onnx'}\n"] * 2
    assert len(publisher.asked) == 2  # one that was cut off, and its rest


def test_an_official_pose_network_runs_as_ours(publisher: Publisher) -> None:
    publisher.conduct = ["whole"]
    with pytest.raises(
        UserError, match=r"from a mirror, and nothing proves its SHA-256 (\w+); .* --sha256 \1"
    ):
        pull("pose-one")
    path = pull("pose-one", sha256=hashlib.sha256(FILES[POSE_ZIP]).hexdigest())
    card, _ = open_model(path)
    assert card.skeleton == "coco17" and card.input_size == (32, 64) and card.split_ratio == 2
    assert card.data[1].licence.startswith("annotations CC BY") and receipt(path).proof == "asked"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sha256": "0" * 64, "seen": 1}, f"another file: its SHA-256 is {SHA256}, not 0000"),
        ({"bytes": len(PTH) + 1}, f"has {len(PTH)} bytes, not the {len(PTH) + 1} of the released file"),
    ],
)
def test_the_catalogue_is_believed_unless_a_hash_is_given(
    publisher: Publisher, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    write_catalogue(tmp_path / "catalogue.yaml", publisher.address, **changes)
    forget()
    with pytest.raises(UserError, match=reason):
        pull("named-one", pause=0.001)
    assert receipt(pull("named-one", sha256=SHA256)).proof == "asked"
    with pytest.raises(UserError, match="--sha256 asks for that"):
        pull("named-one", sha256="1" * 64)


def test_a_folder_and_a_file_put_there_by_hand_are_trusted(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = tmp_path / "offline"
    (offline / UNNAMED).parent.mkdir(parents=True)
    (offline / UNNAMED).write_bytes(PTH)
    monkeypatch.setenv("RTMPOSE_MIRRORS", f"{publisher.address}/none, {offline.as_uri()}")
    publisher.conduct = ["gone"]
    path = pull("unnamed-one", pause=0.001)
    assert receipt(path).proof == "contents" and receipt(path).address == str(offline / UNNAMED)
    [(asked, _)] = publisher.asked
    assert asked == f"/none/{UNNAMED}"
    (path.parent / Path(NAMED).name).write_bytes(PTH)
    assert receipt(pull("named-one")).address == str(path.parent / Path(NAMED).name)
    assert len(publisher.asked) == 1 and DIGITS in receipt(path.with_name("named-one.pth")).address


def test_mirrors_come_from_a_file_and_one_that_is_none_is_told(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config/rtmpose/mirrors.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(f"mirrors: ['{publisher.address}/first']")
    assert pull("named-one").read_bytes() == PTH
    assert [path for path, _ in publisher.asked] == [f"/first/{NAMED}", f"/{NAMED}"]
    config.write_text("mirror: x")
    with pytest.raises(UserError, match=r"mirrors\.yaml: mirrors: Field required"):
        pull("unnamed-one")
    monkeypatch.setenv("RTMPOSE_MIRRORS", "s3://user:secret@bucket/x?key=secret")
    with pytest.raises(UserError, match=r"RTMPOSE_MIRRORS: 's3://bucket/x' is no mirror") as caught:
        pull("unnamed-one")
    assert "secret" not in str(caught.value)


def test_the_command_prints_where_the_file_lies_and_what_proves_it(
    publisher: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pull_command(["named-one"], cache=tmp_path / "other")
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'other/weights/named-one.pth'}\n"
    assert printed.err.startswith("named-one: ") and "begins with the digits in its name" in printed.err
    (tmp_path / "cache/weights").mkdir(parents=True)
    (tmp_path / "cache/weights" / Path(UNNAMED).name).write_bytes(PTH)
    pull_command(["unnamed-one"])
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2 and all(note.startswith("note: unnamed-one") for note in notes)
    assert notes[1].endswith(SHA256)
    with pytest.raises(UserError, match="--sha256: 'x' must be 64 hexadecimal digits, for one name"):
        pull_command(["named-one"], sha256="x")


def test_a_full_disk_is_told_before(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "SPARE", 1 << 60)
    with pytest.raises(
        UserError, match=r"MB are needed and \d+ MB are free; free space, or set RTMPOSE_CACHE"
    ):
        pull("named-one", pause=0.001)
    assert left(tmp_path) == [] and os.listdir(tmp_path / "cache") == ["weights"]
