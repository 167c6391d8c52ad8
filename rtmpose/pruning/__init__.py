"""A trained network cut down to a smaller size of the same family."""
