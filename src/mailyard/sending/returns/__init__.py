"""What comes back after the hand-over: by mail to signed return-paths, or from a provider.

Everything that is told becomes an `Occurrence`; `Recorder` writes it into the delivery's story and
draws the consequences. Who tells, and how often, and in which order, makes no difference.
"""
