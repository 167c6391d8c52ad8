"""People over time: who is who from frame to frame, when to detect again, and points that do not jump."""
