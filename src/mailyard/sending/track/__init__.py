"""Opens, clicks and unsubscribes: links that are ours, what came through them, who did it.

markup     where the links are in HTML
token      what a link of ours carries: a delivery and a link, signed
dress      a template with its links replaced by variables, once; a mail's own tokens
link       addresses, stored before a mail that leads to them leaves
domain     names of a workspace that lead here
hit        what comes in, durable before it is answered
judge      a person or a machine (machines.toml)
record     the job that writes events, counts and tells
"""
