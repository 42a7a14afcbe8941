"""The whole lifecycle in minutes, offline, on a synthetic market, with every part the real one."""
