"""Where training runs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rtmpose.config.base import Strict

Precision = Literal["fp32", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]
# oneDNN's bf16 gradient of the head's 7x7 convolution on a map of 2 columns or rows is not initialised.
BF16_LEAST_SIDE = 96  # px of the input


class HardwareParams(Strict):
    """Where training runs. Worker counts do not change a result; the precision does."""

    workers: int = Field(1, ge=1)
    cpus_per_worker: float = Field(2, gt=0)
    gpus_per_worker: float = Field(0, ge=0)
    loader_workers: int = Field(1, ge=0)
    precision: PrecisionChoice = Field(
        "auto", description="auto: bf16 where every device that trains has instructions for it, else fp32"
    )
    storage: str = Field("runs", description="where checkpoints go: a folder that every worker sees")
    max_failures: int = Field(2, ge=0)
    cache: str = Field("data/cache", description="where each machine keeps copies of remote shards")
    cache_gb: float = Field(50.0, gt=0)
    jobs: str | None = Field(
        None, description="the Ray job server that training is submitted to; null: RAY_ADDRESS, else here"
    )

    @model_validator(mode="after")
    def _jobs_is_a_url(self) -> HardwareParams:
        if self.jobs is not None and not self.jobs.startswith(("http://", "https://")):
            raise ValueError(f"jobs {self.jobs} must be a job server's URL, such as http://127.0.0.1:8265")
        return self
