"""Where files lie. Code may run in a copy of the checkout, and then three questions have different answers.

    code_root()   Where is this code? Its git commit is asked there.
    home(path)    Where does this machine keep a file? Raw data, caches, the default MLflow data base.
    shared(path)  Where do all machines find a file? Run stores, weights: whatever a Ray job reads or leaves.

Two tools make copies, and both delete them afterwards: a DVC experiment runs below `.dvc/tmp/exps` in a copy
of what git tracks, and a Ray job in a copy that its submitter has packed. Anywhere else `shared` is `home`.
"""

from __future__ import annotations

import os
from pathlib import Path

from rtmpose.files import UserError

#: The variable by which a job knows the checkout that it is a copy of, on storage that all machines see.
JOB_HOME = "RTMPOSE_HOME"


def code_root() -> Path | None:
    """The checkout, or the copy of one, that this very code was loaded from; None for an installed wheel.

    Take it for what belongs to the code, such as its git commit; never for anything that is kept.
    """
    code = Path(__file__).resolve().parent.parent
    return code if (code / "pyproject.toml").exists() else None


def home(path: Path | str = ".", *, start: Path | None = None) -> Path:
    """`path` in the checkout that `start` (None: the current folder) lies in, absolute.

    A DVC experiment's copy stands for the checkout that it was made from. Take it for what one machine keeps,
    such as raw data and caches.
    """
    folder = start or Path.cwd()
    checkout, inside, _ = folder.as_posix().partition("/.dvc/tmp/exps/")
    return (Path(checkout or "/") if inside else folder) / path


def shared(path: Path | str) -> Path:
    """`path` in the checkout, absolute; inside a Ray job, in the checkout that the job is a copy of.

    Take it for what one process writes and another one, perhaps on another machine, reads. UserError for a
    relative path inside a job that does not know its checkout.
    """
    if not in_job() or Path(path).is_absolute():
        return home(path)
    if JOB_HOME not in os.environ:
        raise UserError(
            f"{path}: a job runs in a copy of the checkout that is deleted afterwards; set {JOB_HOME} to the "
            "checkout's path on storage that all machines see, or make this path absolute"
        )
    return Path(os.environ[JOB_HOME]) / path


def in_job() -> bool:
    """Whether this process is the entrypoint of a Ray job, or was started by it: Ray then hands it the job's
    settings.
    """
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
