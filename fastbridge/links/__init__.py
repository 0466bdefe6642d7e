"""Links: what an emulated wire does to frames, from words to the numbers that the core takes."""
