"""From trained weights to files that run elsewhere: export, parity, runtimes, benchmark. Knows nothing of
training.
"""
