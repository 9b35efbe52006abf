"""What an author writes (layouts, blocks, MJML, styles) becomes three plain sources to render.

It runs once, at publishing, in the process with walls of `sending/proof.py`.
"""
