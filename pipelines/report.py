"""Stage `report`: the run on one page, which also goes to MLflow with the registered version."""

from __future__ import annotations

from pathlib import Path

from pipelines import stage
from rtmpose.config import Record, read_record

REGISTERED, PAGE = Path("metrics/register.json"), Path("reports/report.html")


class Registered(Record):
    name: str
    version: int
    run_id: str


def main(argv: list[str]) -> None:
    from rtmpose.fingerprint import git_commit
    from rtmpose.report.folder import Folder
    from rtmpose.report.page import write
    from rtmpose.report.source import log, place

    receipt = read_record(Registered, REGISTERED, "run the register stage again")
    conf, here = Path("conf"), Path()
    name = f"{receipt['name']} version {receipt['version']}"
    write(Folder(here, name, git_commit(), conf if conf.is_dir() else None), PAGE)
    log(receipt["run_id"], here, PAGE, place(receipt["name"], receipt["version"]))
    print(f"report    {name} on one page, {PAGE.stat().st_size / 1e6:.1f} MB → {PAGE}")


if __name__ == "__main__":
    stage(main)
