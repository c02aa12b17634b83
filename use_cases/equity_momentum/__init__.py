"""Cross-sectional momentum in large US stocks."""
