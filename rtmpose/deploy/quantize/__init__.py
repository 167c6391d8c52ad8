"""From float32 to eight bits, for each runtime in its own way, and the gate that no precision passes which
costs accuracy.
"""
