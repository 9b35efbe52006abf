"""What other parsers made of the public mails, beside what ours makes of them.

One module a family; each yields `Comparison`s in the words of its family. `python -m agreement` in
`tests/corpora` prints the shares and every disagreement.
"""
