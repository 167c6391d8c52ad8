"""RTMPose's Table 1, rung by rung, under several seeds: `python -m pipelines.ladder`; a killed ladder goes on
when run again.

Through DVC: `dvc exp run -S recipe=ladder ladder/dvc.yaml`. `dvc repro` alone does not run it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipelines import stage

MIX = Path("data/mix.json")
TABLE, METRICS = Path("metrics/ladder.csv"), Path("metrics/ladder.json")
REPORT, PICTURE = Path("reports/ladder.md"), Path("reports/ladder.png")


def main(argv: list[str]) -> None:
    from rtmpose.cluster.submit import job_server
    from rtmpose.config import load_params
    from rtmpose.ladder.report import publish
    from rtmpose.ladder.run import run_ladder
    from rtmpose.tracking import runs

    params = load_params()
    write = partial(publish, params, table=TABLE, metrics=METRICS, report=REPORT, picture=PICTURE)
    rungs, rows, run_id = run_ladder(params, mix=MIX, publish=write)
    if job_server(params.hardware) is None:
        for path in (TABLE, REPORT, PICTURE):
            runs.log_file(run_id, path, "ladder")
    print(f"ladder    {len(rungs)} rungs, {len(rows)} runs → {REPORT}")


if __name__ == "__main__":
    stage(main)
