"""What a mail says that a program can use, found by rules: codes, links, parcels, orders, days,
sums, and where the reply ends and the quote begins. Each thing says where it stands.
"""
