"""How good translations are, in numbers: features of images, distances between sets and between pictures."""
