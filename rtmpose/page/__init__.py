"""The local page of `rtmpose serve` and its HTTP endpoint."""
