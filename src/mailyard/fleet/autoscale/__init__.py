"""How many processes of each group there should be: a policy that is data, decided purely."""
