"""The microworld over three seeds, and over strengths of the KL penalty."""
