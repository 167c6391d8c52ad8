"""A model in a runtime's own format: converted once, whole or not at all, and anew for other files.

A receipt beside the converted files names, by hash, what they were made from and what they are. It is written
last, so what was cut short has none.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rtmpose.deploy.runtimes.base import Infer, ModelFiles, NotPossible, Precision, RuntimeName
from rtmpose.deploy.runtimes.onnxruntime import open_file, read_card
from rtmpose.files import (
    UserError,
    locked,
    one_line,
    read_json,
    sha256_of,
    temporary_beside,
    write_atomic,
    writing,
)

# How far, relative to the largest output, a right conversion may be from the exported file on noise. Wrong
# ones were off by 0.2 to 0.9. Right ones are off by 1e-5 in fp32, by 6e-4 with MNN's approximate functions,
# and by 2e-3 in fp16.
TOLERANCE: dict[Precision, float] = {"fp32": 1e-2, "fp16": 3e-2, "bf16": 1e-1}
LITTLE_SPACE = 1 << 20  # bytes free on a disk that counts as full

Parts = tuple[Path, ...]


@dataclass(frozen=True)
class Conversion:
    """How a model gets a runtime's format.

    `endings`: those of the converted files or folders, such as (".ncnn.param", ".ncnn.bin"). `version`: of
    the converter. `make(files, precision, parts)` writes them under the paths `parts`. `open(parts)` opens
    them, where the host can, so that they are compared with the exported file before they are kept.
    """

    runtime: RuntimeName
    endings: tuple[str, ...]
    version: str
    make: Callable[[ModelFiles, Precision, Parts], None]
    open: Callable[[Parts], Infer] | None = None

    def converted(self, files: ModelFiles, precision: Precision) -> Parts:
        """The converted files, made first unless they were made from these very files by this version.

        Their place is `ModelFiles.form`. NotPossible where the converter fails, or what it made computes
        something else; UserError where the disk does not take it.
        """
        parts = tuple(files.form(precision, ending) for ending in self.endings)
        receipt = self.receipt(files, precision)
        sources = self._sources(files)
        with locked(files.onnx.with_name(f".{receipt.name}.lock")):
            if _made_from(receipt, parts) != sources:
                self._convert(files, precision, receipt, sources, parts)
        return parts

    def kept(self, files: ModelFiles, precision: Precision) -> Parts | None:
        """The converted files as they lie there, made from this exported file in whatever way; else None."""
        parts = tuple(files.form(precision, ending) for ending in self.endings)
        made_from = _made_from(self.receipt(files, precision), parts)
        of_these = made_from is not None and made_from.get(files.onnx.name) == sha256_of(files.onnx)
        return parts if of_these else None

    def receipt(self, files: ModelFiles, precision: Precision) -> Path:
        """Where it lies."""
        return files.form(precision, f".{self.runtime}.json")

    def _sources(self, files: ModelFiles) -> dict[str, str]:
        paths = [files.onnx, *([files.weights] if files.weights else [])]
        return {path.name: sha256_of(path) for path in paths} | {"converter": self.version}

    def _convert(
        self, files: ModelFiles, precision: Precision, receipt: Path, sources: dict[str, str], parts: Parts
    ) -> None:
        for stale in receipt.parent.glob(
            f".{receipt.name}.*.tmp"
        ):  # of one that was killed: the lock is ours
            shutil.rmtree(stale, ignore_errors=True)
        folder = temporary_beside(receipt)
        with writing(receipt):
            folder.mkdir()
            try:
                made = tuple(folder / part.name for part in parts)
                self._make(files, precision, made)
                receipt.unlink(missing_ok=True)  # from here on the old files are no longer whole
                for new, place in zip(made, parts, strict=True):
                    _replace(new, place)
                write_atomic(receipt, json.dumps(_receipt(sources, parts), indent=1))
            finally:
                with suppress(OSError):  # the first error is the one to be told
                    shutil.rmtree(folder)

    def _make(self, files: ModelFiles, precision: Precision, made: Parts) -> None:
        try:
            self.make(files, precision, made)
            missing = [path.name for path in made if not path.exists()]
            if missing:
                raise NotPossible(f"{self.runtime}: the conversion wrote no {' and no '.join(missing)}")
            if self.open is not None and precision in TOLERANCE:
                refuse_other_results(self.open(made), files, TOLERANCE[precision], self.runtime)
        except (UserError, OSError, ImportError):
            raise
        except Exception as error:  # each converter has errors of its own
            _refuse_full_disk(made[0])
            if isinstance(error, NotPossible):
                raise
            raise NotPossible(f"{self.runtime}: the conversion failed: {one_line(error)[:300]}") from None


def refuse_other_results(infer: Infer, files: ModelFiles, tolerance: float, runtime: str) -> None:
    """NotPossible where `infer` gives other outputs for noise than the exported file in ONNX Runtime, by more
    than `tolerance` of its largest value; UserError where their sizes are not those of the model card.
    """
    card = read_card(files.onnx)
    image, _ = card.shapes(batch=1)
    images = np.random.default_rng(0).standard_normal(image, np.float32)
    expected = open_file(files.onnx, threads=1).run(list(card.outputs), {"input": images})
    found = infer(images)
    shapes = {name: output.shape for name, output in zip(card.outputs, found, strict=False)}
    card.refuse_unlike({"input": image} | shapes, files.onnx)
    largest = max(float(np.abs(part).max()) for part in expected)
    worst = max(float(np.abs(ours - part).max()) for ours, part in zip(found, expected, strict=True))
    if not worst <= tolerance * largest:  # so that NaN is refused, too
        raise NotPossible(
            f"{runtime} computes something else than ONNX Runtime: outputs of up to {largest:.3g} differ by "
            f"up to {worst:.3g}"
        )


def _made_from(receipt: Path, parts: Parts) -> dict[str, str] | None:
    """What the receipt says that the files were made from; None where they are not the ones that it names."""
    if not receipt.exists() or not all(part.exists() for part in parts):
        return None
    try:
        found = read_json(receipt)
    except UserError:
        return None
    sources: dict[str, str] | None = found.get("sources") if isinstance(found, dict) else None
    return sources if isinstance(sources, dict) and found == _receipt(sources, parts) else None


def _receipt(sources: dict[str, str], parts: Sequence[Path]) -> dict[str, Any]:
    return {"sources": sources, "files": {part.name: _hash(part) for part in parts}}


def _hash(path: Path) -> str | dict[str, str]:
    if path.is_file():
        return sha256_of(path)
    inside = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): sha256_of(file) for file in inside}


def _replace(new: Path, place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place)
    os.replace(new, place)


def _refuse_full_disk(path: Path) -> None:
    """UserError where the disk is full: converters say it in many ways, or not at all."""
    if shutil.disk_usage(path.parent).free < LITTLE_SPACE:
        raise UserError(f"{path.parent.parent}: cannot be written: no space left on device; free space there")
