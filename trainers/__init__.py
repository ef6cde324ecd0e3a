"""The trainers that ship: a readable file for each method, and their recipes."""
