"""Experiments with the autoscaler: each brings up a platform of its own, does something to it, and
writes down what became of it, second by second."""
