"""Metrics besides AP that data sets are judged by: PCK, PCKh, AUC, EPE and NME of points, AP by how crowded
an image is and by part of the body.
"""

from rtmpose.evaluation.measures.counterparts import in_points, sigmas_in
from rtmpose.evaluation.measures.points import area_under_curve, mean_error, normalised, pck
from rtmpose.evaluation.measures.pooled import Pool
from rtmpose.evaluation.measures.report import Measured, measure, shown

__all__ = [
    "Measured",
    "Pool",
    "area_under_curve",
    "in_points",
    "mean_error",
    "measure",
    "normalised",
    "pck",
    "shown",
    "sigmas_in",
]
