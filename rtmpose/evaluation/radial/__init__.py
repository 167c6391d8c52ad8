"""Errors in millimetres, as landmarks on radiographs are judged."""

from rtmpose.evaluation.radial.errors import (
    SDR_THRESHOLDS,
    RadialErrors,
    radial_errors,
    radial_figures,
    radial_line,
)

__all__ = ["SDR_THRESHOLDS", "RadialErrors", "radial_errors", "radial_figures", "radial_line"]
