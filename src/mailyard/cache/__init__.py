"""What may be forgotten: values that are dear to make, kept for a while, shared where it pays."""
