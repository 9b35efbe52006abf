"""Events that providers send: a module for each, which checks who sent them and reads them.

All are pure: bytes, secret and time in, values out. What none of them has to know (endpoints,
certificates to fetch, replays, the database) is `intake.py`'s and `events.py`'s.
"""
