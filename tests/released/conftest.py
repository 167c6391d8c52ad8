"""A publisher of a few small files: a catalogue of them, and an HTTP server that misbehaves as it is told."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper

from rtmpose.released import catalogue as catalogues

SIZE = (32, 64)  # (w, h) px of the network


def checkpoint(seed: int) -> bytes:
    """A file that PyTorch writes: 64 kB of numbers with a name."""
    buffer = io.BytesIO()
    weights = torch.from_numpy(np.random.default_rng(seed).standard_normal(16384).astype(np.float32))
    torch.save({"state_dict": {"backbone.weight": weights}}, buffer)
    return buffer.getvalue()


def network(points: int = 17, *, free: bool = False, batch: int | str = "batch") -> onnx.ModelProto:
    """A SimCC network in MMDeploy's form: one convolution as wide as RTMPose-t's, and a linear layer; `free`
    leaves the sizes of its input and outputs open.
    """
    rng = np.random.default_rng(1)
    sides = {"simcc_x": 2 * SIZE[0], "simcc_y": 2 * SIZE[1]}
    nodes = [
        helper.make_node("Conv", ["input", "stem"], ["maps"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
    ]
    weights = {"stem": rng.standard_normal((12, 3, 3, 3))}
    shapes = []
    for name, side in sides.items():
        weights |= {f"w_{name}": rng.standard_normal((12, points * side))}
        shapes.append(numpy_helper.from_array(np.array([-1, points, side]), f"s_{name}"))
        nodes.append(helper.make_node("MatMul", ["flat", f"w_{name}"], [f"f_{name}"]))
        nodes.append(helper.make_node("Reshape", [f"f_{name}", f"s_{name}"], [name]))
    image = [batch, 3, "height", "width"] if free else [batch, 3, SIZE[1], SIZE[0]]
    graph = helper.make_graph(
        nodes,
        "simcc",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, image)],
        [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, [batch, "points", f"{name}_bins"] if free else [batch, points, side]
            )
            for name, side in sides.items()
        ],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()] + shapes,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with those entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


PTH, OTHER, ONNX = checkpoint(0), checkpoint(1), network().SerializeToString()
ZIP = zipped({"sdk/end2end.onnx": ONNX, "sdk/pipeline.json": b"{}"})
DIGITS = hashlib.sha256(PTH).hexdigest()[:8]
FILES = {
    f"v1/named-{DIGITS}_20230504.pth": PTH,
    "v1/unnamed-00000000_20230504.pth": PTH,
    "v1/sdk/pose-12345678_20230504.zip": ZIP,
    "v1/sdk/boxes-12345678.zip": ZIP,
}
NAMED, UNNAMED, POSE_ZIP, BOXES_ZIP = FILES


@dataclass
class Publisher:
    """A server of `FILES`. `conduct` says how it answers one request after another, the last for ever;
    `asked` is what it was asked: path and Range.
    """

    address: str
    conduct: list[str] = field(default_factory=lambda: ["whole"])
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    waiting: threading.Event = field(default_factory=threading.Event)

    @property
    def ranges(self) -> list[str | None]:
        """The Range of every request."""
        return [one for _, one in self.asked]


class Handler(BaseHTTPRequestHandler):
    """Answers as the publisher's conduct says."""

    publisher: Publisher

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        publisher = self.publisher
        kind = publisher.conduct.pop(0) if len(publisher.conduct) > 1 else publisher.conduct[0]
        publisher.asked.append((self.path, self.headers["Range"]))
        content = FILES.get(self.path.removeprefix("/"))
        if content is None:
            self.send_error(404)
        else:
            getattr(self, f"_{kind}", self._file)(kind, content)

    def _file(self, kind: str, content: bytes) -> None:
        """whole, cut (half of what is left), plain (no ranges), plaincut, long (promises more), changed (is
        another version by now), other (another file), waits (half, then until it is told to go on).
        """
        if kind == "other":
            content = OTHER
        etag = '"2"' if kind == "changed" else '"1"'
        start, wanted = 0, self.headers["Range"]
        ranged = wanted is not None and not kind.startswith("plain") and self.headers["If-Range"] == etag
        if ranged:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            self._status(416, {"Content-Range": f"bytes */{len(content)}"})
            return
        length = len(content) - start + (10 if kind == "long" else 0)
        headers = {"Content-Length": str(length), "ETag": etag}
        if ranged:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._status(206 if ranged else 200, headers)
        half = kind in ("cut", "plaincut", "waits")
        self.wfile.write(content[start : start + (len(content) - start) // 2] if half else content[start:])
        if kind == "waits":
            self.wfile.flush()
            self.publisher.waiting.wait(30)
        self.close_connection = True

    def _status(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _short(self, _: str, content: bytes) -> None:
        """Promises less than the file has, and gives that."""
        self._status(200, {"Content-Length": str(len(content) - 10)})
        self.wfile.write(content[:-10])

    def _page(self, _: str, __: bytes) -> None:
        page = b"<html>log in</html>"
        self._status(200, {"Content-Type": "text/html; charset=utf-8", "Content-Length": str(len(page))})
        self.wfile.write(page)

    def _rawpage(self, _: str, __: bytes) -> None:
        page = b"\n<!doctype html><p>log in</p>"
        self._status(200, {"Content-Length": str(len(page))})
        self.wfile.write(page)

    def _huge(self, _: str, __: bytes) -> None:
        self._status(200, {"Content-Length": str(1 << 40)})

    def _gone(self, _: str, __: bytes) -> None:
        self.send_error(404)

    def _broken(self, _: str, __: bytes) -> None:
        self.send_error(500)

    def _loop(self, _: str, __: bytes) -> None:
        self._status(302, {"Location": self.path, "Content-Length": "0"})

    def _leave(self, _: str, __: bytes) -> None:
        self._status(302, {"Location": "ftp://elsewhere/file", "Content-Length": "0"})


@pytest.fixture
def publisher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    """A publisher whose catalogue is the only one known, and a cache of its own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    address = f"http://127.0.0.1:{server.server_address[1]}"
    found = Publisher(address)
    monkeypatch.setattr(Handler, "publisher", found, raising=False)
    thread = threading.Thread(target=lambda: server.serve_forever(0.01), daemon=True)
    thread.start()
    write_catalogue(tmp_path / "catalogue.yaml", address)
    monkeypatch.setattr(catalogues, "CATALOGUE", tmp_path / "catalogue.yaml")
    monkeypatch.setattr(catalogues.read_catalogue, "__defaults__", (tmp_path / "catalogue.yaml",))
    monkeypatch.setenv("RTMPOSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("RTMPOSE_MIRRORS", raising=False)
    forget()
    yield found
    found.waiting.set()
    server.shutdown()
    server.server_close()
    thread.join()
    forget()


def forget() -> None:
    """The catalogue is read anew."""
    catalogues.catalogue.cache_clear()
    catalogues.known.cache_clear()


def write_catalogue(path: Path, mirror: str, **changes: object) -> Path:
    """A catalogue of `FILES`; `changes` go into the file of the weights `named-one`."""
    proof = {"sha256": hashlib.sha256(ZIP).hexdigest(), "seen": 1}
    common = {"data": ["coco17"], "input": list(SIZE)}
    detector = common | {"kind": "detector", "network": "rtmdet", "size": "nano"}
    pose = common | {"kind": "pose", "network": "rtmpose", "size": "t"}
    weights = {
        "named-one": detector | {"pth": {"path": NAMED, "source": "list"} | changes},
        "unnamed-one": detector | {"pth": {"path": UNNAMED, "source": "list"}},
        "pose-one": pose | {"skeleton": "coco17", "onnx": {"path": POSE_ZIP, "source": "list"}},
        "boxes-one": detector | {"onnx": {"path": BOXES_ZIP, "source": "list"} | proof},
    }
    content = {
        "licence": "Apache-2.0",
        "licence_note": "by a test",
        "mirrors": [mirror],
        "sources": {"list": "a test"},
        "weights": weights,
    }
    path.write_text(yaml.safe_dump(content))
    return path
