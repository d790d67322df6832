"""How fast HyperAgent runs, part by part, and what each design choice is worth."""
