# fish reads this at the first Tab behind `fastbridge`. The program says the rest itself, so it fits each version.
fastbridge completion fish 2>/dev/null | source
