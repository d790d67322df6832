"""Published Atari scores after 2M interactions, per game and over games (Tables 2 and 7 to 9 of arXiv 2402.10228)."""
