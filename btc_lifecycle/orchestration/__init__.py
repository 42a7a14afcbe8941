"""All that knows Dagster, and nothing else does."""
