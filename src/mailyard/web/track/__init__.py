"""What links in mail lead to: redirects, pixels, unsubscribing, the preference page."""
