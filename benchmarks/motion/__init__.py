"""Tracking on films whose truth is known: what a detector and a pose network would see of them."""
