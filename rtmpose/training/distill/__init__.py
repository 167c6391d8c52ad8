"""A trained network guides another, and then a network its own new head (DWPose, arXiv 2307.15880)."""
