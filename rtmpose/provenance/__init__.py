"""Whose data is in weights, under which terms: from descriptors over shards, mix and receipts into every file
of weights.
"""
