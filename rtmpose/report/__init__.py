"""A run on one page: what was trained on which data, how good it is and where it fails, what it costs, and
how to do it again. The page is one HTML file that fetches nothing.
"""
