"""`rtmpose serve`: a local page for pictures, videos and the camera, and an HTTP endpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer()


@commands.command()
def serve(
    model: Annotated[
        str,
        typer.Option(help="An ONNX file, models:/NAME@ALIAS, or a name that `rtmpose weights list` shows."),
    ] = "models/rtmpose.onnx",
    detector: Annotated[
        str | None,
        typer.Option(help="What finds people: an ONNX file or a name; without, one fills the picture."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; the default is this machine alone.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 7860,
    proxy_name: Annotated[
        list[str] | None,
        typer.Option(help="A name by which a proxy in front of it is reached; repeatable."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of the model; all cores by default.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Of models:/…: fp32, fp16 or int8 (default: what was picked for this machine)."),
    ] = None,
    video_seconds: Annotated[float, typer.Option(min=1, help="The longest video that is taken.")] = 60.0,
) -> None:
    """Open a page that shows people's poses in pictures, videos and the camera, with an HTTP endpoint.

    It listens on this machine alone, sends nothing anywhere, and needs no network. Ctrl-C ends it.
    """
    from rtmpose.page.server import check_extra, listening, serve, url_of

    check_extra()
    listener = listening(host, port)

    from rtmpose import PosePipeline
    from rtmpose.page.app import page
    from rtmpose.page.guard import known_hosts
    from rtmpose.page.limits import Limits

    frames = round(video_seconds * Limits.video_frames / Limits.video_seconds)
    app = page(
        PosePipeline.load(model, detector, threads=threads, precision=precision),
        name=Path(model).name,
        detector=None if detector is None else Path(detector).name,
        limits=Limits(video_seconds=video_seconds, video_frames=frames),
        hosts=known_hosts(host, proxy_name or []),
    )
    typer.echo(f"{url_of(host, listener)}  (Ctrl-C ends it)")
    serve(app, listener)
