"""`rtmpose doctor`: what this machine can do, what a recipe lacks, and the command that mends each lack.

Every question is small and has a time limit. What is slow to import, may crash or may never answer is asked
in a process of its own (`child`, `probes`); what it leaves becomes lines here. Nothing is written, and nobody
is asked but the addresses that the user has set.
"""
