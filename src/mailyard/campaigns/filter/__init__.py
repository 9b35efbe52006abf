"""The filter language of segments: text <-> tree, and tree -> SQL with parameters.

country = "DE" and plan in ("pro", "team") and not list "churned"
and opened within 30 days and bought(category = "shoes", total > 50) within 90 days
"""
