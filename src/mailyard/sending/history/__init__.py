"""Mail that another system sent, taken over as history: tables and their rows."""
