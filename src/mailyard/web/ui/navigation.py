"""The way through the pages: groups of entries, each a path and its name."""

NAVIGATION = (
    ("", (("/", "Overview"),)),
    (
        "Receive",
        (
            ("/inboxes", "Inboxes"),
            ("/search", "Search"),
            ("/receiving", "Receiving domains"),
            ("/receiving-policy", "Receiving policy"),
            ("/analysis", "Analysis"),
        ),
    ),
    (
        "Send",
        (
            ("/campaigns", "Campaigns"),
            ("/templates", "Templates"),
            ("/deliveries", "Deliveries"),
            ("/domains", "Domains"),
            ("/reports", "Reports"),
            ("/tracking", "Tracking"),
            ("/providers", "Providers and routes"),
            ("/limits", "Sending limits"),
            ("/destinations", "Destinations"),
            ("/provider-hooks", "Provider events"),
        ),
    ),
    (
        "Audience",
        (
            ("/contacts", "Contacts"),
            ("/segments", "Segments"),
            ("/topics", "Topics"),
            ("/imports", "Imports"),
            ("/suppressions", "Suppressions"),
        ),
    ),
    (
        "Run",
        (
            ("/webhooks", "Webhooks"),
            ("/usage", "Usage"),
            ("/business", "Business"),
            ("/database", "Database and backups"),
            ("/dead-letters", "Dead letters"),
            ("/alerts", "Alerts"),
            ("/scaling", "Scaling"),
            ("/features", "Features"),
            ("/regions", "Regions"),
            ("/audit", "Audit log"),
            ("/access", "Access"),
            ("/account", "Your account"),
        ),
    ),
)

PATHS = frozenset(path for _, entries in NAVIGATION for path, _ in entries)
