"""From raw data sets to augmented batches: annotations, crops, shards, stream, augmentation, rendered
mannequins.
"""
