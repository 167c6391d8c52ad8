"""What comes from outside of a run: models of stores and releases, streams, and signals."""
