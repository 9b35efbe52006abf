"""Mailyard: a self-hosted email platform that sends, receives, and proves that it lost nothing."""

__version__ = "0.1.0"
