"""The page on a free port of this machine, and files to send to it."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image

from rtmpose.inference.pipeline import PosePipeline
from rtmpose.page.server import listening, url_of

SIZE = (160, 120)
BOX = (10.0, 20.0, 70.0, 100.0, 0.75)  # corners px and a score


def one_box(_: np.ndarray) -> np.ndarray:
    """A detector that always sees the same person."""
    return np.array([BOX])


def tiny(model: Path) -> PosePipeline:
    return PosePipeline.load(model, one_box, threads=1)


@contextmanager
def running(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the application, which runs in a thread; it ends as after Ctrl-C."""
    listener = listening("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    with listener:
        try:
            with httpx.Client(base_url=url_of("127.0.0.1", listener), timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def pixels(seed: int = 3) -> np.ndarray:
    made = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(made, (0, 0), 3), np.uint8)


def encoded(form: str) -> bytes:
    """A picture as `jpeg`, `png`, `gif`, `bmp`, `webp`, `tiff`, `cmyk` or `deep` (16 bits)."""
    if form == "deep":
        return cv2.imencode(".png", pixels().astype(np.uint16) * 257)[1].tobytes()
    image, content = Image.fromarray(pixels()), io.BytesIO()
    if form == "cmyk":
        image, form = image.convert("CMYK"), "jpeg"
    image.save(content, form)
    return content.getvalue()


def bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A whole PNG header that claims so many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
