"""Ray Tune over parameters of finetuning, kept in a ledger that outlives kills."""
