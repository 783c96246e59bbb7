"""Integrations with the real libraries; each file is skipped where its library is not installed."""
