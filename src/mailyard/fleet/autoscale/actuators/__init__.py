"""What can change how many processes there are."""
