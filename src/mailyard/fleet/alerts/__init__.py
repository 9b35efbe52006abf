"""What is not as it should be: rules that are data, judged purely, told once and told when over."""
