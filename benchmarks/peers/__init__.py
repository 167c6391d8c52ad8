"""Other implementations that the benchmarks run beside ours, each in an environment of its own under
`.peers/`.
"""
