"""Folders of pictures to batches on the device."""
