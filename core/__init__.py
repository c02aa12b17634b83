"""Floor 0: words, contracts and storage. Imports nothing else of ours."""
