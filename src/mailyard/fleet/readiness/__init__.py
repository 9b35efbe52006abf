"""Is this installation ready for a stage? The checklist of `mailyard doctor --for STAGE`.

A check finds how an item stands, whatever the stage: met, thin or missing. `needs` says what a
stage wants of it, and only both together make a finding. So one installation can be asked about
the stage that it is at, and about the next.
"""
