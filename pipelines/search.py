"""Ray Tune over parameters of finetuning: `python -m pipelines.search`; a killed search goes on when run
again.

With `search.enabled: false` the recipe's values are kept.
"""

from __future__ import annotations

from pathlib import Path

from pipelines import stage

MIX, INIT = Path("data/mix.json"), Path("models/pretrain.pt")
OUT, TABLE, PICTURE = Path("models/search.json"), Path("metrics/search.csv"), Path("reports/search.png")


def main(argv: list[str]) -> None:
    from rtmpose.config import load_params
    from rtmpose.search.run import run_search
    from rtmpose.training.job import finetune_init

    params = load_params()
    choice = run_search(
        params, mix=MIX, init=finetune_init(params, INIT), out=OUT, table=TABLE, picture=PICTURE
    )
    chosen = "".join(f"  {path} = {value}" for path, value in choice.values.items())
    print(f"search    {choice.note}{chosen} → {OUT}")


if __name__ == "__main__":
    stage(main)
