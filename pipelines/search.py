"""Ray Tune over τ and σ: `python -m pipelines.search`; with `search.enabled: false` the recipe's values are handed on."""

from __future__ import annotations

from pathlib import Path

from pipelines import stage

MIX, INIT = Path("data/mix.json"), Path("models/pretrain.pt")
OUT, TABLE = Path("models/search.json"), Path("metrics/search.csv")


def main(argv: list[str]) -> None:
    from rtmpose.config import load_params
    from rtmpose.training.search import run_search

    choice = run_search(load_params(), mix=MIX, init=INIT, out=OUT, table=TABLE)
    print(f"search    {choice.note}: τ = {choice.tau:g}, σ = ({choice.sigma[0]:.2f}, {choice.sigma[1]:.2f}) bins → {OUT}")


if __name__ == "__main__":
    stage(main)
