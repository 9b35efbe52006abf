"""What a mail says that a program can use, found by rules: codes, links, parcels, orders, days, sums,
and where the reply ends and the quote begins. Everything found has its evidence: where it stands.
"""
