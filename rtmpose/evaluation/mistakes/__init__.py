"""What is wrong with predicted points: kinds of errors, what mending each would give, and the worst poses."""
