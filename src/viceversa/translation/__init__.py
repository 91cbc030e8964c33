"""A model file and pictures in, translated pictures out: images, folders, films."""
