"""The page as a browser shows it: nothing is fetched from elsewhere, a photograph is drawn and saved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rtmpose.page.answers import ImageAnswer, VideoAnswer
from tests.page.support import encoded
from tests.support import SHARED

pytestmark = pytest.mark.slow
PHOTO = SHARED / "realdata/coco/val2017/000000000785.jpg"
# How many pixels have the colour of right limbs.
COLOURED = """() => {
  const shown = document.getElementById("canvas"), copy = new OffscreenCanvas(shown.width, shown.height);
  const context = copy.getContext("2d", { willReadFrequently: true });
  context.drawImage(shown, 0, 0);
  const all = context.getImageData(0, 0, copy.width, copy.height).data;
  let count = 0;
  for (let at = 0; at < all.length; at += 4) count += all.slice(at, at + 3).join() === "40,140,255";
  return count;
}"""


class Seen:
    """A page, and what it said and asked for."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def saved(self, tmp_path: Path, button: str) -> bytes:
        with self.page.expect_download() as download:
            self.page.click(button)
        download.value.save_as(tmp_path / "saved")
        return (tmp_path / "saved").read_bytes()


@pytest.fixture
def seen(browser: Any, client: httpx.Client) -> Iterator[Seen]:
    page = browser.new_page()
    found = Seen(page)
    page.goto(str(client.base_url))
    page.wait_for_selector("body[data-ready]")
    yield found
    page.close()
    home = (str(client.base_url), "blob:", "data:")
    assert found.said == [] and [url for url in found.asked if not url.startswith(home)] == []


def test_a_photograph_is_drawn_and_saved(seen: Seen, tmp_path: Path) -> None:
    content = PHOTO.read_bytes() if PHOTO.exists() else encoded("jpeg")
    seen.page.set_input_files("#file", {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": content})
    seen.page.wait_for_selector("body[data-shown=image]")
    seen.page.fill("#sure", "0")
    drawn = seen.page.evaluate(COLOURED)
    (person,) = ImageAnswer.model_validate_json(seen.saved(tmp_path, "#json")).people
    assert None not in person.keypoints
    assert seen.saved(tmp_path, "#png").startswith(b"\x89PNG")
    middle = float(np.median(person.confidence))
    seen.page.fill("#sure", f"{middle:.2f}")
    assert 0 < seen.page.evaluate(COLOURED) < drawn
    (left,) = ImageAnswer.model_validate_json(seen.saved(tmp_path, "#json")).people
    kept = np.array(person.confidence) >= round(middle, 2)
    assert [point is not None for point in left.keypoints] == kept.tolist()
    seen.page.fill("#sure", "1")
    assert seen.page.evaluate(COLOURED) == 0 and seen.page.inner_text("#found") == "0 people"


def test_a_video_and_the_camera(seen: Seen, tmp_path: Path, video: Path) -> None:
    sent = {"name": "clip.mp4", "mimeType": "video/mp4", "buffer": video.read_bytes()}
    seen.page.set_input_files("#file", sent)
    seen.page.wait_for_selector("body[data-shown=video]")
    seen.page.fill("#sure", "0")
    seen.page.wait_for_function(f"({COLOURED})() > 0")
    assert len(VideoAnswer.model_validate_json(seen.saved(tmp_path, "#json")).frames) == 8
    seen.page.click("#camera")
    seen.page.wait_for_selector("body[data-shown=camera]")
    seen.page.click("#camera")
    assert seen.page.get_attribute("#camera", "aria-pressed") == "false"


def test_a_fault_is_one_line_on_the_page(browser: Any, client: httpx.Client) -> None:
    page = browser.new_page()
    page.goto(str(client.base_url))
    page.wait_for_selector("body[data-ready]")
    page.set_input_files("#file", {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": b"text"})
    page.wait_for_selector("#error:not([hidden])")
    assert "no JPEG" in page.inner_text("#error") and not page.is_visible("#busy")
    page.close()
