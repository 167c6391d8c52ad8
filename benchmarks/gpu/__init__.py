"""What `gpu_check.py` checks, by what it needs. Modules here import nothing but PyTorch."""
