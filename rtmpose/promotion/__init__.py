"""From candidate to champion: what was measured of a version, the gates it has to pass, and a record of who
promoted what that two people cannot write at once.
"""
