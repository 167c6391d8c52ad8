"""Many images in one file, as radiological sets come: the file format, and the sets that are read from it."""
