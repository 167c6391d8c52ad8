"""MLflow: `runs` are what was trained and how it went, `models` are the versions that are handed on."""
