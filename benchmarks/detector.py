"""Box AP and time of a person detector on photographs with complete annotations.

    python benchmarks/detector.py DETECTOR.onnx [--runtimes onnxruntime,openvino] [--threads 1]
        [--annotations FILE --images FOLDER] [--limit N]

Without annotations the 200 photographs of ../shared/realdata/coco are taken. AP is COCO's, of people, IoU
0.50 to 0.95, boxes with a score of 0.05 and more, at most 100 an image; its interval comes from 1,000
resamples of the images. The time is the whole call for one image in memory: resize, network, suppression.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rtmpose.detection.detector import open_detector
from rtmpose.detection.evaluate import LEAST_SCORE, judge, read_people
from rtmpose.machine import cpu_line

COCO = Path(__file__).resolve().parents[2] / "shared" / "realdata" / "coco"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("detector", type=Path)
    parser.add_argument("--runtimes", default="onnxruntime,openvino")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--annotations", type=Path, default=COCO / "annotations/person_keypoints_val2017.json"
    )
    parser.add_argument("--images", type=Path, default=COCO / "val2017")
    parser.add_argument("--limit", type=int, help="the first N images only")
    given = parser.parse_args()
    photographs = read_people(given.annotations, given.images)[: given.limit]
    print(f"{given.detector.name} on {len(photographs)} photographs, {given.threads} thread(s), {cpu_line()}")
    found = {}
    for runtime in given.runtimes.split(","):
        detector = open_detector(
            given.detector, threshold=LEAST_SCORE, runtime=runtime, threads=given.threads
        )
        one = judge(detector, photographs)
        found[runtime] = asdict(one)
        width, height = detector.size
        print(
            f"{runtime}, {width}x{height}: AP {one.ap.value:.3f} ({one.ap.low:.3f} to {one.ap.high:.3f}), "
            + ", ".join(f"{key} {value:.3f}" for key, value in one.figures.items() if key != "AP")
            + f"; {one.milliseconds:.1f} ms an image; {one.persons} persons"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
