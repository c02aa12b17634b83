"""News of suppliers in trouble, and of their customers' shares."""
