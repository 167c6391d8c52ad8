"""What is MPII's alone."""
