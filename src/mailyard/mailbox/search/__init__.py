"""Search over received mail: its language, its index, its answers with snippets."""
