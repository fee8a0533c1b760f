"""The pure core: what a signed request is and when it is right.

Standard library only; no clock, store, stream or framework. Time, credentials and body digests are arguments.
Used by `schemes`, `plugins`, `gate` and everything above them.
"""
