"""One module a family of subcommands; none of them imports at its top what only its run needs."""
