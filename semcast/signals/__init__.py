"""Real signals: as files, through a sound card, and over simulated radio paths."""
