"""Damaged and hostile uploads, sent to the page's endpoint as anybody could send them.

    python -m tests.faults.page [--seed 1] [--count 300]

A small exported model answers. The last line is one JSON object: how many were sent, how many got each
status, and how many answers were `wrong`: a status that is none of those of a bad upload, no answer, a fault
that is not one line, or a success that is not of the form that the OpenAPI document describes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
from pydantic import BaseModel, ValidationError

from rtmpose.deploy.export import export_onnx
from rtmpose.page.answers import Fault, ImageAnswer, VideoAnswer
from rtmpose.page.app import page
from tests.deploy.support import SIZE, card, formula_net
from tests.faults.mutations import damaged
from tests.inference.clips import clip
from tests.inference.test_served import turned
from tests.page.support import bomb, encoded, running, tiny

MISTAKES = {400, 413, 415, 422}
TYPES = (
    "",
    "image/jpeg",
    "image/png",
    "video/mp4",
    "application/octet-stream",
    "text/html",
    "image/../x",
    "\xff",
)
QUERIES: tuple[dict[str, str], ...] = (
    {}, {}, {"boxes": "1,2,30,40"}, {"boxes": "0,0,999999,999999"}, {"boxes": "-9,-9,0.0001,0.0001"},
    {"boxes": "1e3,2,3,4"}, {"boxes": ""}, {"boxes": "\0,\0,\0,\0"}, {"boxes": "٣,1,2,3"}, {"sure": "1"},
    {"sure": "-inf"}, {"every": "1"}, {"every": "9" * 400}, {"unknown": "x"},
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = export_onnx(formula_net(), SIZE, Path(folder) / "tiny.onnx", card=card())
        with running(page(tiny(model))) as client:
            counts, wrong = send(client, seeds(Path(folder)), options.seed, options.count)
    print("\n".join(wrong), file=sys.stderr)
    print(json.dumps({"sent": options.count} | counts | {"wrong": len(wrong)}))
    sys.exit(1 if wrong else 0)


def seeds(folder: Path) -> list[bytes]:
    """Whole files of every kind, which are damaged then, and such as hurt unless they are refused."""
    pictures = [encoded(name) for name in ("jpeg", "png", "gif", "bmp", "webp", "tiff", "cmyk", "deep")]
    films = [clip(folder / f"clip{ending}").read_bytes() for ending in (".mp4", ".mkv")]
    claims = [
        bomb(),
        bomb(1, 2**31 - 1),
        bomb(0, 0),
        b"GIF89a\xff\xff\xff\xff",
        b"\xff\xd8\xff",
        b"BM" + bytes(60),
    ]
    return [*pictures, turned(pictures[0]), *films, *claims]


def send(client: httpx.Client, files: list[bytes], seed: int, count: int) -> tuple[dict[str, int], list[str]]:
    """How many got each status, and in words what was wrong. The same seed sends the same."""
    counts: Counter[str] = Counter()
    wrong = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        content = files[rng.integers(len(files))]
        if rng.random() < 0.8:
            content = damaged(content, rng)
        kind = "video" if rng.random() < 0.3 else "image"
        query = QUERIES[rng.integers(len(QUERIES))]
        try:
            answer = _posted(client, kind, content, query, rng)
        except httpx.HTTPError as error:
            wrong.append(f"{number} {kind} {query}: {error!r}")
            continue
        counts[str(answer.status_code)] += 1
        if problem := _problem(answer, kind):
            wrong.append(f"{number} {kind} {query} {content[:16]!r}: {problem}")
    return dict(sorted(counts.items())), wrong


def _posted(
    client: httpx.Client, kind: str, content: bytes, query: dict[str, str], rng: np.random.Generator
) -> httpx.Response:
    said = TYPES[rng.integers(len(TYPES))]
    if rng.random() < 0.3:
        sent = {"file": ("../../x\0.jpg", content, said or None)}
        return client.post(f"/v1/{kind}", params=query, files=sent)
    headers = {b"Content-Type": said.encode("latin-1")}
    return client.post(f"/v1/{kind}", params=query, content=content, headers=headers)


def _problem(answer: httpx.Response, kind: str) -> str | None:
    """What is wrong with an answer to a bad upload; None where nothing is."""
    success: type[BaseModel] = ImageAnswer if kind == "image" else VideoAnswer
    if answer.status_code not in MISTAKES | {200}:
        return f"status {answer.status_code}: {answer.text[:300]}"
    try:
        form = success if answer.status_code == 200 else Fault
        found = form.model_validate_json(answer.content)
    except ValidationError as error:
        return f"status {answer.status_code}: {error}"
    if isinstance(found, Fault) and len(found.error.splitlines()) != 1:
        return f"no one line: {found.error!r}"
    return None


if __name__ == "__main__":
    main()
