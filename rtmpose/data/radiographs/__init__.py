"""Drawn lateral radiographs of the head with 38 landmarks, in the form of the CL-Detection 2023 challenge, so
that everything about them runs without the challenge's data, which is given out on registration alone.

They are no radiographs: what a network learns on them is worth nothing on patients. What is alike is what
makes the task: one large grey image of one head, edges of bone over one another, landmarks at their corners,
sizes and pixel spacings that vary.
"""
