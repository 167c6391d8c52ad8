"""About how many bytes samples will take in a shard: which images share one is planned by it."""

from __future__ import annotations

import math

from rtmpose.data.raw.records import RawImage
from rtmpose.data.shards.crops import FINER, CutFor

# Measured on photographs: of the region that `crop_bytes` estimates; headers and JSON.
BYTES_PER_PIXEL, BYTES_PER_SAMPLE = 0.45, 2500


def file_bytes(raw: RawImage) -> float:
    """What an image's file takes; of one in a stack, about what a PNG of it does."""
    if raw.page is not None:
        return float((raw.width or 0) * (raw.height or 0))
    return float(raw.path.stat().st_size)


def crop_bytes(cut_for: CutFor, raw: RawImage) -> float:
    """About what the crops of an image take: a full box, turned anyhow. Exact regions would take a tenth of
    the whole time.
    """
    width, height = raw.width or 10**6, raw.height or 10**6
    aspect = cut_for.input_size[0] / cut_for.input_size[1]
    total = float(BYTES_PER_SAMPLE * len(raw.persons))
    for x, y, w, h in (person.box for person in raw.persons):
        across = max(w, h * aspect) * cut_for.padding
        reach = math.hypot(across, across / aspect) / 2 * (1 + cut_for.scale)
        wide = min(x + w / 2 + reach, width) - max(x + w / 2 - reach, 0)
        high = min(y + h / 2 + reach, height) - max(y + h / 2 - reach, 0)
        reduction = min(1.0, FINER * cut_for.input_size[0] / (across * (1 - cut_for.scale)))
        total += wide * high * reduction**2 * BYTES_PER_PIXEL
    return total
