"""Training: one loop, its optimizer and checkpoints; Ray only in `launch`."""
