"""The page and its HTTP endpoint, as one FastAPI application."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import WithJsonSchema
from starlette.exceptions import HTTPException

from rtmpose.deploy.card import own_version
from rtmpose.files import UserError, unbroken
from rtmpose.inference.pipeline import PosePipeline
from rtmpose.page import uploads
from rtmpose.page.answers import Fault, Health, ImageAnswer, LimitsAnswer, ModelAnswer, VideoAnswer
from rtmpose.page.guard import HOME, Guard
from rtmpose.page.limits import Limits, Refused
from rtmpose.page.line import Gone, Line
from rtmpose.page.poses import BOX, image_answer, video_answer

LOG = logging.getLogger(__name__)
STATIC = Path(__file__).with_name("static")
CLOSED = 499  # nobody reads it: the status that servers log for a connection the client closed
REASONS = {
    400: "No image or video that can be read, or no file in the form.",
    403: "Asked for by another name, or by another site's page.",
    408: "The body did not arrive in time.",
    413: "Too many bytes, pixels, seconds or frames.",
    415: "A kind of file that is not read.",
    422: "A parameter that is none.",
    500: "A defect of the server or of the model's file.",
    503: "Too many requests are waiting.",
    504: "No answer in time.",
}
FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": Fault, "description": text} for status, text in REASONS.items()
}

BoxesQuery = Annotated[
    list[Annotated[str, WithJsonSchema({"type": "string", "pattern": BOX})]],
    Query(description="Persons' boxes x,y,w,h in px, repeatable; without any the detector finds people."),
]
SureQuery = Annotated[float, Query(ge=0, le=1, description="Points with less confidence are null.")]
EveryQuery = Annotated[int, Query(ge=1, le=100, description="The detector runs on every n-th frame.")]


def page(
    pipeline: PosePipeline,
    *,
    name: str = "model",
    detector: str | None = None,
    limits: Limits | None = None,
    hosts: Collection[str] | None = HOME,
) -> FastAPI:
    """The application for an open pipeline.

    Args:
        pipeline: used from one thread, one request at a time.
        name: what the page calls the model, and `detector` its detector.
        limits: what a request may ask for.
        hosts: the names that requests may be for; None: any.
    """
    most = limits or Limits()
    line = Line(most.waiting)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="rtmpose-page-") as folder:
            app.state.folder = Path(folder)
            try:
                yield
            finally:
                line.close()

    app = FastAPI(
        title="RTMPose", version=own_version(), lifespan=lifespan, docs_url=None, redoc_url=None,
        description="People's keypoints in images and videos. Every fault is one line of text.",
    )  # fmt: skip
    app.add_middleware(Guard, hosts=None if hosts is None else frozenset(hosts))
    _answer_faults(app)
    _add_poses(app, pipeline, line, most)
    _add_facts(app, line, model_answer(pipeline, name, detector, most))
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


def _add_poses(app: FastAPI, pipeline: PosePipeline, line: Line, most: Limits) -> None:
    @app.post("/v1/image", responses=FAULTS, openapi_extra=_body("image", "jpeg", "png", "webp"))
    async def image(request: Request, boxes: BoxesQuery = [], sure: SureQuery = 0.0) -> ImageAnswer:  # noqa: B006
        """People's keypoints in an image: the body itself, or the file of a form."""
        with line.place():
            content = await uploads.picture(request, most.image_bytes, most.upload)
            asked = time.perf_counter()
            work = partial(image_answer, pipeline, content, boxes, sure, most, asked)
            return await line.run(lambda _: work(), most.image_time, request.is_disconnected)

    @app.post("/v1/video", responses=FAULTS, openapi_extra=_body("video", "mp4"))
    async def video(request: Request, every: EveryQuery = 5, sure: SureQuery = 0.0) -> VideoAnswer:
        """People's keypoints in every frame of a video, with identities over time."""
        folder: Path = request.app.state.folder
        with line.place():
            async with uploads.video(request, folder, most.video_bytes, most.upload) as path:
                asked = time.perf_counter()
                work = partial(video_answer, pipeline, path, every, sure, most, asked)
                return await line.run(work, most.video_time, request.is_disconnected)


def _add_facts(app: FastAPI, line: Line, facts: ModelAnswer) -> None:
    refusals: dict[int | str, dict[str, Any]] = {403: FAULTS[403]}

    @app.get("/v1/model", responses=refusals)
    async def model() -> ModelAnswer:
        """The model: its points, their limbs, its input, licences, runtime, and the server's limits."""
        return facts

    @app.get("/healthz", responses=refusals)
    async def health() -> Health:
        """The server is up."""
        return Health(status="ok", waiting=line.inside)

    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(STATIC / "index.html")


def _body(kind: str, *forms: str) -> dict[str, Any]:
    """OpenAPI's words for a body that is a file, or a form with one."""
    file = {"type": "string", "format": "binary"}
    form = {"type": "object", "required": ["file"], "properties": {"file": file}}
    raw = {f"{kind}/{name}": {"schema": file} for name in forms} | {uploads.BYTES: {"schema": file}}
    return {"requestBody": {"required": True, "content": {uploads.FORM: {"schema": form}, **raw}}}


def _answer_faults(app: FastAPI) -> None:
    """Whatever goes wrong is one line of JSON with its status."""

    @app.exception_handler(Refused)
    async def refused(_: Request, fault: Refused) -> Response:
        return _fault(fault.status, fault.text, dict(fault.headers))

    @app.exception_handler(RequestValidationError)
    async def unfit(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return _fault(422, f"{where}: {str(first.get('input'))[:60]!r}: {first['msg']}", {})

    @app.exception_handler(HTTPException)
    async def known(_: Request, error: HTTPException) -> Response:
        return _fault(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(Gone)
    async def gone(_: Request, __: Gone) -> Response:
        return Response(status_code=CLOSED)

    @app.exception_handler(UserError)
    async def unusable(_: Request, error: UserError) -> Response:  # the model's file gives no finite points
        return _fault(500, str(error), {})

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> Response:
        return _fault(500, f"{type(error).__name__}: {error}: the server's log has more", {})


def _fault(status: int, text: str, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse(Fault(error=unbroken(text)).model_dump(), status, headers)


def model_answer(pipeline: PosePipeline, name: str, detector: str | None, limits: Limits) -> ModelAnswer:
    """What `/v1/model` says."""
    import onnxruntime

    card = pipeline.card
    return ModelAnswer(
        name=name,
        names=[*pipeline.names],
        skeleton=pipeline.skeleton.name,
        limbs=[*pipeline.skeleton.limbs],
        input_size=card.input_size,
        architecture=f"RTMPose-{card.size}, {card.head}",
        precision=card.precision,
        version=card.version,
        licences=sorted({source.licence for source in card.data if source.licence}),
        runtime=f"ONNX Runtime {onnxruntime.__version__}, CPU",
        detector=detector,
        calibrated=pipeline.calibrated,
        limits=LimitsAnswer(
            image_bytes=limits.image_bytes,
            image_pixels=limits.image_pixels,
            video_bytes=limits.video_bytes,
            video_seconds=limits.video_seconds,
        ),
    )
